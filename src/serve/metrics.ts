/** What `/metrics` shows, in Prometheus' text format. Each server has its own registry. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import type { SchedulerObserver } from "./engine/scheduler.js";

const SECONDS = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300];

export class ServerMetrics implements SchedulerObserver {
  readonly registry = new Registry();
  readonly #requests: Counter<"route" | "status">;
  readonly #promptTokens: Counter;
  readonly #generatedTokens: Counter;
  readonly #batch: Histogram;
  readonly #first: Histogram;
  readonly #sequence: Histogram;

  constructor() {
    const registers = [this.registry];
    collectDefaultMetrics({ register: this.registry });
    this.#requests = new Counter({
      name: "pocketllm_http_requests_total",
      help: "Answered HTTP requests",
      labelNames: ["route", "status"],
      registers,
    });
    this.#promptTokens = new Counter({
      name: "pocketllm_prompt_tokens_total",
      help: "Prompt tokens computed",
      registers,
    });
    this.#generatedTokens = new Counter({
      name: "pocketllm_generated_tokens_total",
      help: "Tokens generated",
      registers,
    });
    this.#batch = new Histogram({
      name: "pocketllm_batch_sequences",
      help: "Sequences that advanced together in a step",
      buckets: [1, 2, 4, 8, 16, 32],
      registers,
    });
    this.#first = new Histogram({
      name: "pocketllm_time_to_first_token_seconds",
      help: "From arrival to the first token",
      buckets: SECONDS,
      registers,
    });
    this.#sequence = new Histogram({
      name: "pocketllm_sequence_seconds",
      help: "From arrival to the end of a sequence",
      buckets: SECONDS,
      registers,
    });
  }

  /** Gauges of the queue, read whenever they are asked for. */
  watch(scheduler: { readonly waiting: number; readonly running: number }): void {
    const gauge = (name: string, help: string, value: () => number) =>
      new Gauge({
        name,
        help,
        registers: [this.registry],
        collect() {
          this.set(value());
        },
      });
    gauge("pocketllm_sequences_waiting", "Sequences in the queue", () => scheduler.waiting);
    gauge("pocketllm_sequences_running", "Sequences in the batch", () => scheduler.running);
  }

  request(route: string, status: number): void {
    this.#requests.inc({ route, status });
  }

  step(sequences: number): void {
    this.#batch.observe(sequences);
  }

  prompt(tokens: number): void {
    this.#promptTokens.inc(tokens);
  }

  first(seconds: number): void {
    this.#first.observe(seconds);
  }

  end(tokens: number, seconds: number): void {
    this.#generatedTokens.inc(tokens);
    this.#sequence.observe(seconds);
  }
}
