/**
 * How operations are split over threads. Only over independent outputs, never over a reduction: results are
 * the same for any number of threads.
 */
import type { WasmRuntime } from "./runtime.js";

/** A range of units for each thread, `grain` units at a time; fewer ranges than threads when units are few. */
export function splitRange(units: number, grain: number, threads: number): [first: number, end: number][] {
  const grains = Math.ceil(units / grain);
  const parts = Math.min(threads, grains);
  const boundary = (i: number) => Math.min(units, Math.round((grains * i) / parts) * grain);
  return Array.from({ length: parts }, (_, i) => [boundary(i), boundary(i + 1)]);
}

/**
 * Multiplications (or operations of that cost) below which a second thread does not pay: handing over takes
 * 3 to 10 µs, in which one thread does about this many.
 */
const WORTH_SHARING = 1 << 17;

/** Threads to use for an operation of that much work. */
export function threadsFor(work: number, threads: number): number {
  return work < WORTH_SHARING ? 1 : threads;
}

/** Runs a kernel over `units`, `grain` at a time, on as many threads as `work` is worth. */
export function runSplit(
  runtime: WasmRuntime,
  kernel: string,
  units: number,
  grain: number,
  work: number,
  args: (first: number, end: number, thread: number) => number[],
): void {
  const threads = threadsFor(work, runtime.threads);
  if (threads === 1 && units > 0) {
    runtime.parallel(kernel, [args(0, units, 0)]);
    return;
  }
  const ranges = splitRange(units, grain, threads);
  runtime.parallel(
    kernel,
    ranges.map(([first, end], thread) => args(first, end, thread)),
  );
}
