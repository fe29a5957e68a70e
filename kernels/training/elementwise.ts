// Elementwise operations of training: gradient of the gated activation, scaling, zeroing.

import { add } from "../elementwise";
import { exp4 } from "../exp";
import { scale } from "../softmax";
import { f32Bytes } from "../vector";

/**
 * Gradients of silu(gate) * up over elements first .. end - 1. Each element is read before it is written, so
 * dGate may be gate, and dUp may be up or dy.
 */
export function siluMultiplyBackward(
  gate: usize,
  up: usize,
  dy: usize,
  dGate: usize,
  dUp: usize,
  first: i32,
  end: i32,
): void {
  const one = f32x4.splat(1);
  let p = f32Bytes(first);
  const fours = f32Bytes(first + ((end - first) & ~3));
  for (; p < fours; p += 16) {
    const g = v128.load(gate + p);
    const sigmoid = f32x4.div(one, f32x4.add(one, exp4(f32x4.neg(g))));
    const d = f32x4.mul(v128.load(dy + p), sigmoid);
    const u = v128.load(up + p);
    v128.store(dGate + p, gateGradient(d, u, g, sigmoid, one));
    v128.store(dUp + p, f32x4.mul(d, g));
  }
  for (; p < f32Bytes(end); p += 4) {
    const g = v128.load32_zero(gate + p);
    const sigmoid = f32x4.div(one, f32x4.add(one, exp4(f32x4.neg(g))));
    const d = f32x4.mul(v128.load32_zero(dy + p), sigmoid);
    const u = v128.load32_zero(up + p);
    v128.store32_lane(dGate + p, gateGradient(d, u, g, sigmoid, one), 0);
    v128.store32_lane(dUp + p, f32x4.mul(d, g), 0);
  }
}

/** d u (1 + g (1 - sigmoid)), d = dy sigmoid. */
// @ts-ignore: decorator
@inline
function gateGradient(d: v128, u: v128, g: v128, sigmoid: v128, one: v128): v128 {
  return f32x4.mul(f32x4.mul(d, u), f32x4.add(one, f32x4.mul(g, f32x4.sub(one, sigmoid))));
}

/** x *= factor over elements first .. end - 1. */
export function scaleElements(x: usize, factor: f32, first: i32, end: i32): void {
  scale(x + f32Bytes(first), end - first, factor);
}

/** Row r of x [?, columns] *= factors[r], rows first .. end - 1. */
export function scaleRows(x: usize, factors: usize, columns: i32, first: i32, end: i32): void {
  const stride = f32Bytes(columns);
  for (let r = first; r < end; r++)
    scale(x + <usize>r * stride, columns, load<f32>(factors + f32Bytes(r)));
}

/** x = 0 over elements first .. end - 1. */
export function zeroElements(x: usize, first: i32, end: i32): void {
  memory.fill(x + f32Bytes(first), 0, f32Bytes(end - first));
}

/** table[ids[t]] += x[t] in order of t, columns first .. end - 1 of rows of `columns`. */
export function scatterAdd(
  table: usize,
  ids: usize,
  x: usize,
  tokens: i32,
  columns: i32,
  first: i32,
  end: i32,
): void {
  const stride = f32Bytes(columns);
  for (let t = 0; t < tokens; t++) {
    const row = table + <usize>load<i32>(ids + f32Bytes(t)) * stride;
    add(row, x + <usize>t * stride, first, end);
  }
}
