/**
 * Speed, memory and load time of models, each in a process of its own, their runs in turn: ratios between them hold
 * on a machine that others use too, single figures do not.
 */

import { availableParallelism, cpus, loadavg } from "node:os";
import { fileURLToPath } from "node:url";
import type { OnProgress } from "../progress.js";
import { median } from "./best.js";
import { Child } from "./child.js";
import { type Speed, type Speeds, takeTurns } from "./contestant.js";
import type { KernelReport } from "./kernels.js";
import type { LoadFigures, MemoryFigures, ModelProcessOptions, ModelRequest } from "./model-process.js";

export interface BenchOptions {
  /** Paths, the first is the one that the others are compared with. */
  readonly models: readonly string[];
  /** Default: the cores, at most 8. */
  readonly threads?: number | undefined;
  /** Tokens decoded in a run. Default 32. */
  readonly tokens?: number | undefined;
  /** Runs of each kind that count. Default 5. */
  readonly runs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Stages "loading", "measuring" (runs) and "kernels". */
  readonly onProgress?: OnProgress | undefined;
}

export interface ModelSpeed extends MemoryFigures, Omit<LoadFigures, "contextLength"> {
  readonly model: string;
  /** Tokens a second, medians. */
  readonly prefill: number;
  readonly decode: number;
  readonly speeds: Readonly<Record<"prefill" | "decode", Speed>>;
  /** Seconds from a prompt of `promptTokens` to the first new token, median. */
  readonly timeToFirstToken: number;
}

export interface BenchReport {
  readonly models: readonly ModelSpeed[];
  /** The first model's kernels, null where it has no coded matrices. */
  readonly kernels: KernelReport | null;
  readonly machine: { readonly cores: number; readonly processor: string; readonly node: string };
  /** The system's average of waiting and running threads over the last minute, at the end. */
  readonly load: number;
}

export const PROMPT_TOKENS = 512;
export const NEW_TOKENS = 32;
export const RUNS = 5;
/** Each load takes a fresh process. */
const LOADS = 3;

/** A process that measures one model; the caller closes it. */
export function modelProcess(options: ModelProcessOptions, signal?: AbortSignal): Child {
  return new Child(
    fileURLToPath(new URL("./model-process.js", import.meta.url)),
    [JSON.stringify(options)],
    signal,
  );
}

/** InputError, one line, when a model cannot be loaded. */
export async function benchModels(options: BenchOptions): Promise<BenchReport> {
  const { models, tokens = NEW_TOKENS, runs = RUNS, signal, onProgress } = options;
  const threads = options.threads ?? Math.min(availableParallelism(), 8);
  const open: Child[] = [];
  const start = (model: string) => {
    const child = modelProcess({ model, threads, promptTokens: PROMPT_TOKENS, newTokens: tokens }, signal);
    open.push(child);
    return child;
  };
  const ask = <T>(child: Child, what: Extract<ModelRequest, { ask: string }>["ask"]) =>
    child.ask<T>({ ask: what });
  try {
    const loads = models.map((): LoadFigures[] => []);
    let contestants: Child[] = [];
    for (let i = 0; i < LOADS; i++) {
      await Promise.all(contestants.map((child) => child.close()));
      contestants = models.map(start);
      for (const [m, child] of contestants.entries()) {
        loads[m].push(await ask<LoadFigures>(child, "load"));
        onProgress?.({ stage: "loading", done: i * models.length + m + 1, total: LOADS * models.length });
      }
    }
    const onRun = (done: number, total: number) => onProgress?.({ stage: "measuring", done, total });
    const speeds = await takeTurns(contestants, { runs, signal, onRun });
    const memory: MemoryFigures[] = [];
    for (const child of contestants) memory.push(await ask<MemoryFigures>(child, "memory"));
    const first = models.map((): number[] => []);
    for (let i = 0; i < LOADS; i++)
      for (const [m, child] of contestants.entries()) first[m].push(await ask<number>(child, "firstToken"));
    onProgress?.({ stage: "kernels", done: 0, total: 1 });
    const kernels = await ask<KernelReport | null>(contestants[0], "kernels");
    onProgress?.({ stage: "kernels", done: 1, total: 1 });
    return {
      models: models.map((model, i) => modelSpeed(model, speeds[i], loads[i], memory[i], median(first[i]))),
      kernels,
      machine: { cores: availableParallelism(), processor: cpus()[0]?.model ?? "", node: process.version },
      load: loadavg()[0],
    };
  } finally {
    await Promise.all(open.map((child) => child.close()));
  }
}

function modelSpeed(
  model: string,
  speeds: Speeds,
  loads: readonly LoadFigures[],
  memory: MemoryFigures,
  timeToFirstToken: number,
): ModelSpeed {
  const of = (key: keyof LoadFigures) => median(loads.map((load) => load[key]));
  return {
    model,
    prefill: speeds.prefill.tokensPerSecond,
    decode: speeds.decode.tokensPerSecond,
    timeToFirstToken,
    speeds,
    ...memory,
    loadSeconds: of("loadSeconds"),
    loadCpuSeconds: of("loadCpuSeconds"),
    readAndHashSeconds: of("readAndHashSeconds"),
    readAndHashCpuSeconds: of("readAndHashCpuSeconds"),
    threads: loads[0].threads,
    promptTokens: loads[0].promptTokens,
  };
}
