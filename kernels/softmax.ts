// Pieces of softmax that attention shares. Not exported from the module.

import { exp4 } from "./exp";
import { f32Bytes, maxLanes, sumLanes } from "./vector";

/** The largest of `count` values; -Infinity for none. */
export function maximum(x: usize, count: i32): f32 {
  let largest = f32x4.splat(-Infinity);
  for (; count >= 4; count -= 4, x += 16) largest = f32x4.pmax(largest, v128.load(x));
  let result = maxLanes(largest);
  for (; count > 0; count--, x += 4) result = max(result, load<f32>(x));
  return result;
}

/** x = exp(x - shift) over `count` values; returns their sum. */
export function expShifted(x: usize, count: i32, shift: f32): f32 {
  const shifts = f32x4.splat(shift);
  let sums = f32x4.splat(0);
  for (; count >= 4; count -= 4, x += 16) {
    const e = exp4(f32x4.sub(v128.load(x), shifts));
    v128.store(x, e);
    sums = f32x4.add(sums, e);
  }
  let total = sumLanes(sums);
  for (; count > 0; count--, x += 4) {
    const e = exp1(load<f32>(x) - shift);
    store<f32>(x, e);
    total += e;
  }
  return total;
}

export function exp1(x: f32): f32 {
  return f32x4.extract_lane(exp4(f32x4.splat(x)), 0);
}

/** x *= factor over `count` values. */
export function scale(x: usize, count: i32, factor: f32): void {
  const factors = f32x4.splat(factor);
  for (; count >= 4; count -= 4, x += 16) v128.store(x, f32x4.mul(v128.load(x), factors));
  for (; count > 0; count--, x += 4) store<f32>(x, load<f32>(x) * factor);
}

export function softmaxRow(x: usize, columns: i32): void {
  const total = expShifted(x, columns, maximum(x, columns));
  scale(x, columns, <f32>1 / total);
}
