// Pieces that the two passes of attention's gradient share. Not exported from the module.

import { f32Bytes, multiplyAdd, sumLanes } from "../vector";

/** Rows computed together: their lanes in the pass over queries, their sums in the pass over keys. */
export const ROWS: i32 = 32;

/**
 * A thread's task of each round, forwards and backwards in turn: costs fall or rise steadily from task to task,
 * and the same place in every round would leave one thread with the greater half.
 */
// @ts-ignore: decorator
@inline
export function taskOf(round: i32, first: i32, step: i32): i32 {
  return round * step + (round & 1 ? step - 1 - first : first);
}

/** to = factor * from over `count` values. */
export function copyScaled(to: usize, from: usize, count: i32, factor: f32): void {
  const factors = f32x4.splat(factor);
  for (; count >= 4; count -= 4, from += 16, to += 16) v128.store(to, f32x4.mul(v128.load(from), factors));
  for (; count > 0; count--, from += 4, to += 4) store<f32>(to, load<f32>(from) * factor);
}

/** Writes `count` values to a column: `stride` bytes apart. */
export function copyToColumn(to: usize, stride: usize, from: usize, count: i32, factor: f32): void {
  for (; count > 0; count--, from += 4, to += stride) store<f32>(to, load<f32>(from) * factor);
}

export function dotRow(a: usize, b: usize, count: i32): f32 {
  let sums = f32x4.splat(0);
  for (; count >= 4; count -= 4, a += 16, b += 16) sums = multiplyAdd(v128.load(a), v128.load(b), sums);
  let sum = sumLanes(sums);
  for (; count > 0; count--, a += 4, b += 4) sum += load<f32>(a) * load<f32>(b);
  return sum;
}
