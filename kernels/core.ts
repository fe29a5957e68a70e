/** What the runtime itself asks of the kernels. */

import { multiplyAdd } from "./vector";

/** First address that is free for allocation: constants of the kernels lie below. */
export function heapBase(): usize {
  return __heap_base;
}

/** Does nothing: measures the cost of dispatch. */
export function nothing(): void {}

/** Traps: shows that an error in a worker reaches its owner. */
export function trap(): void {
  unreachable();
}

/** Sets `count` f32 values at `target`. */
export function fill(target: usize, count: i32, value: f32): void {
  const end = target + ((<usize>count) << 2);
  for (let p = target; p < end; p += 4) store<f32>(p, value);
}

/**
 * Whether `multiplyAdd` rounds once: (1 + e)² - (1 + 2e) with e = 2^-12 is then e², and 0 if the product is
 * rounded first. The arguments (1 + e and -(1 + 2e)) come from outside so that no compiler computes it.
 */
export function fusesMultiplyAdd(a: f32, c: f32): bool {
  const x = f32x4.splat(a);
  return f32x4.extract_lane(multiplyAdd(x, x, f32x4.splat(c)), 0) != 0;
}
