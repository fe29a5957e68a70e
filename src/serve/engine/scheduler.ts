/**
 * Which sequences run, and when: a bounded queue in order of arrival, a batch of sequences that advance together,
 * joined and left between steps. A step is one token of every sequence whose prompt is through and a chunk of prompts:
 * short ones go along with the tokens, a long one goes before them. It delays the others by a chunk a step, and they
 * delay it by a token.
 */
import { setTimeout as delay } from "node:timers/promises";
import { InputError } from "../../errors.js";
import { eventLoopTurn } from "../../runtime/event-loop.js";
import { endTokenIds } from "../../runtime/generate.js";
import type { LoadedModel } from "../../runtime/loaded-model.js";
import type { Batch } from "../../runtime/model.js";
import { Sequence, type SequenceEvent, type SequenceRequest, SMALLEST_CHUNK } from "./sequence.js";

/** What the server needs of a model. */
export type ServedModel = Pick<
  LoadedModel,
  "config" | "tokenizer" | "contextLength" | "createBatch" | "createConstraint"
>;

/** How long newcomers wait at most where all that run wait to know what their formats allow. */
const CHOOSING_MS = 10;

/** Prompt tokens in a step: nothing else is answered while they are computed. */
const PREFILL_CHUNK = 64;

export interface SchedulerOptions {
  readonly model: ServedModel;
  /** Sequences that run together. */
  readonly sequences: number;
  /** Sequences that wait. */
  readonly queue: number;
  readonly observer?: SchedulerObserver;
}

/** Told what happens, for metrics. Seconds. */
export interface SchedulerObserver {
  step(sequences: number): void;
  prompt(tokens: number): void;
  /** The first token, or the end of a sequence without one. */
  first(seconds: number): void;
  end(tokens: number, seconds: number): void;
}

/** The queue is full, or the server is stopping. */
export class Refused extends Error {
  constructor(
    readonly reason: "full" | "stopping",
    /** Seconds after which there may be room. */
    readonly retryAfter: number,
  ) {
    super(
      reason === "full"
        ? "the server is busy and its queue is full: try again later"
        : "the server is shutting down",
    );
  }
}

export class Scheduler {
  readonly #model: ServedModel;
  readonly #batch: Batch;
  readonly #endIds: ReadonlySet<number>;
  readonly #limit: number;
  readonly #observer: SchedulerObserver | undefined;
  #waiting: Sequence[] = [];
  #running: Sequence[] = [];
  #loop: Promise<void> | null = null;
  #stopping = false;
  /** Seconds that a sequence runs, a moving average. */
  #service = 1;

  /** InputError when memory does not suffice for the batch. */
  constructor({ model, sequences, queue, observer }: SchedulerOptions) {
    this.#model = model;
    this.#batch = model.createBatch({ sequences, chunk: PREFILL_CHUNK + SMALLEST_CHUNK });
    this.#endIds = endTokenIds(model);
    this.#limit = queue;
    this.#observer = observer;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  get running(): number {
    return this.#running.length;
  }

  /**
   * Queues sequences, all or none. Their events throw the signal's reason once it is aborted. Throws Refused, or
   * UsageError for sampling options out of range.
   */
  submit(requests: readonly SequenceRequest[], signal: AbortSignal): AsyncIterable<SequenceEvent>[] {
    const sequences = this.#accepted(requests, signal);
    this.#waiting.push(...sequences);
    this.#loop ??= this.#run();
    return sequences.map(({ events }) => events);
  }

  /** What is refused gives its grammars back, as `fail` and the end do later. */
  #accepted(requests: readonly SequenceRequest[], signal: AbortSignal): Sequence[] {
    try {
      if (this.#stopping) throw new Refused("stopping", 10);
      const free = this.#batch.sequences - this.#running.length;
      if (this.#waiting.length + requests.length > this.#limit + free)
        throw new Refused("full", this.#retryAfter());
      return requests.map((request) => new Sequence(this.#model.tokenizer, this.#endIds, request, signal));
    } catch (error) {
      for (const { constraint } of requests) constraint?.free();
      throw error;
    }
  }

  /** Takes nothing new, drops what waits, and resolves when nothing runs: give up on it by the signals. */
  async stop(): Promise<void> {
    this.#stopping = true;
    for (const sequence of this.#waiting.splice(0)) sequence.fail(new Refused("stopping", 10));
    await this.#loop;
  }

  /** After `stop`. */
  free(): void {
    this.#batch.free();
  }

  async #run(): Promise<void> {
    while (true) {
      // Requests, aborts and timers have their turn between steps.
      await eventLoopTurn();
      this.#leave();
      this.#admit();
      if (this.#running.length === 0) {
        this.#loop = null;
        return;
      }
      await this.#prefill();
      await this.#advance();
    }
  }

  /** Lets aborted sequences go, those that wait too. */
  #leave(): void {
    const stays = (sequence: Sequence): boolean => {
      if (sequence.signal.aborted && !sequence.done) sequence.fail(sequence.signal.reason);
      return !sequence.done;
    };
    this.#waiting = this.#waiting.filter(stays);
    this.#running = this.#running.filter((sequence) => {
      if (stays(sequence)) return true;
      sequence.session?.free();
      const seconds = (performance.now() - sequence.startedAt) / 1000;
      this.#service += 0.1 * (seconds - this.#service);
      this.#observer?.end(sequence.tokens, (performance.now() - sequence.queuedAt) / 1000);
      return false;
    });
  }

  #admit(): void {
    while (this.#running.length < this.#batch.sequences) {
      const sequence = this.#waiting[0];
      if (sequence === undefined) return;
      try {
        sequence.session = this.#batch.createSession(sequence.capacity, {
          exact: sequence.request.promptLogprobs !== null,
        });
      } catch (error) {
        // Memory for its KV cache: what runs now gives some back at its end.
        if (error instanceof InputError && this.#running.length > 0) return;
        sequence.fail(error);
      }
      this.#waiting.shift();
      sequence.startedAt = performance.now();
      if (!sequence.done) this.#running.push(sequence);
    }
  }

  /** One chunk of the oldest prompt that is not through, where it is not one that goes along with others. */
  async #prefill(): Promise<void> {
    const sequence = this.#running.find(({ prefilled }) => !prefilled);
    if (!sequence || sequence.short) return;
    await guard([sequence], async () => {
      this.#observer?.prompt(await sequence.prefill(PREFILL_CHUNK));
      if (sequence.prefilled) this.#prompted(sequence);
    });
  }

  /** A token of every sequence whose prompt is through, and as many short prompts as fit into a chunk. */
  async #advance(): Promise<void> {
    const able = this.#running.filter(({ done, signal, choosing }) => !done && !signal.aborted && !choosing);
    const ready = able.filter(({ prefilled }) => prefilled);
    let room = PREFILL_CHUNK;
    const prompts = able.filter(({ prefilled, short, request }) => {
      if (prefilled || !short || request.ids.length > room) return false;
      room -= request.ids.length;
      return true;
    });
    const members = [...ready, ...prompts];
    if (members.length === 0) {
      // A schema that is compiled meanwhile holds up the answers with a format, and nobody else: not those that come.
      await Promise.race([delay(CHOOSING_MS), ...this.#running.map(({ choosing }) => choosing)]);
      return;
    }
    if (ready.length > 0) this.#observer?.step(ready.length);
    await guard(members, async () => {
      const logits = await this.#batch.forward(
        members.map(({ session }) => session!),
        members.map((sequence) => sequence.pending()),
      );
      if (prompts.length > 0) this.#observer?.prompt(PREFILL_CHUNK - room);
      for (const sequence of prompts) this.#prompted(sequence);
      for (const [i, sequence] of members.entries())
        await guard([sequence], async () => sequence.accept(logits[i]));
    });
  }

  #prompted(sequence: Sequence): void {
    this.#observer?.first((performance.now() - sequence.queuedAt) / 1000);
  }

  #retryAfter(): number {
    const rounds = Math.ceil((this.#waiting.length + 1) / this.#batch.sequences);
    return Math.min(60, Math.max(1, Math.ceil(rounds * this.#service)));
  }
}

/** An error ends the sequences that it concerns, not the loop. */
async function guard(sequences: readonly Sequence[], run: () => Promise<void>): Promise<void> {
  try {
    await run();
  } catch (error) {
    for (const sequence of sequences) sequence.fail(error);
  }
}
