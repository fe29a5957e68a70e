/**
 * What is measured against each other: an engine with a model, that computes tokens when asked. Contestants take
 * turns, one run of each at a time, so that what else the machine does hits them alike; the others wait without
 * using a core.
 */
import { median } from "./best.js";

/** "prefill": the tokens of a prompt together, from an empty cache. "decode": one after the other, after a few. */
export type Task = "prefill" | "decode";

export interface Run {
  /** Tokens computed. */
  readonly tokens: number;
  readonly seconds: number;
  /** Time that the contestant's threads computed, null where that is not known. */
  readonly cpuSeconds: number | null;
}

export interface Contestant {
  run(task: Task): Promise<Run>;
}

/** Position from which tokens are decoded. */
export const DECODE_FROM = 32;

/** Ids spread over the vocabulary: speed does not depend on which. */
export function promptIds(count: number, vocabularySize: number): Int32Array {
  return Int32Array.from({ length: count }, (_, i) => (7919 * i + 100) % vocabularySize);
}

/** The speed of one contestant at one task. */
export interface Speed {
  /** The median of the runs. */
  readonly tokensPerSecond: number;
  /** The fastest run: nearest to what an undisturbed machine would give. */
  readonly best: number;
  /** Tokens for each second of computing, over all runs: what other programs do hardly changes it. */
  readonly tokensPerCpuSecond: number | null;
}

export type Speeds = Readonly<Record<Task, Speed>>;

export interface TakeTurnsOptions {
  /** Runs of each task that count, after one that does not. */
  readonly runs: number;
  readonly signal?: AbortSignal | undefined;
  /** Called after each run. */
  readonly onRun?: ((done: number, total: number) => void) | undefined;
}

/** The speeds of all contestants, in their order. Every other round goes backwards: no one always comes first. */
export async function takeTurns(
  contestants: readonly Contestant[],
  { runs, signal, onRun }: TakeTurnsOptions,
): Promise<Speeds[]> {
  const order = contestants.map((_, i) => i);
  const total = 2 * (runs + 1) * contestants.length;
  let done = 0;
  const measure = async (task: Task): Promise<Speed[]> => {
    const measured = contestants.map((): Run[] => []);
    for (let round = 0; round <= runs; round++)
      for (const i of round % 2 === 0 ? order : order.toReversed()) {
        signal?.throwIfAborted();
        const run = await contestants[i].run(task);
        if (round > 0) measured[i].push(run);
        onRun?.(++done, total);
      }
    return measured.map(speedOf);
  };
  const prefill = await measure("prefill");
  const decode = await measure("decode");
  return contestants.map((_, i) => ({ prefill: prefill[i], decode: decode[i] }));
}

/** At least one run. */
export function speedOf(runs: readonly Run[]): Speed {
  const rates = runs.map(({ tokens, seconds }) => tokens / seconds);
  const sum = (of: (run: Run) => number) => runs.reduce((all, run) => all + of(run), 0);
  const cpu = runs.some(({ cpuSeconds }) => cpuSeconds === null) ? null : sum((run) => run.cpuSeconds!);
  return {
    tokensPerSecond: median(rates),
    best: Math.max(...rates),
    tokensPerCpuSecond: cpu ? sum(({ tokens }) => tokens) / cpu : null,
  };
}
