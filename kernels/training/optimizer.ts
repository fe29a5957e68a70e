// The optimiser's step and the norm that gradients are clipped by.

import { f32Bytes } from "../vector";

/** Elements per partial sum, the same for any number of threads: so is the order of the whole sum. */
const CHUNK: i32 = 1 << 16;

/** sums[i] (f64) = Σ x² over the i-th 65,536 elements of `length`, i = first .. end - 1. */
export function sumSquares(x: usize, sums: usize, length: i32, first: i32, end: i32): void {
  for (let i = first; i < end; i++) {
    let count = min(CHUNK, length - i * CHUNK);
    let p = x + f32Bytes(i) * <usize>CHUNK;
    let a = f64x2.splat(0);
    let b = a;
    for (; count >= 4; count -= 4, p += 16) {
      const low = f64x2.promote_low_f32x4(v128.load64_zero(p));
      const high = f64x2.promote_low_f32x4(v128.load64_zero(p, 8));
      a = f64x2.add(a, f64x2.mul(low, low));
      b = f64x2.add(b, f64x2.mul(high, high));
    }
    a = f64x2.add(a, b);
    let sum = f64x2.extract_lane(a, 0) + f64x2.extract_lane(a, 1);
    for (; count > 0; count--, p += 4) sum += <f64>load<f32>(p) * <f64>load<f32>(p);
    store<f64>(sums + (<usize>i << 3), sum);
  }
}

/**
 * AdamW over elements first .. end - 1: g = gradientScale * gradient; mean += rest1 * (g - mean), likewise
 * square with g²; parameter -= decay * parameter + rate * mean / (sqrt(correction * square) + epsilon).
 * rest1 = 1 - beta1, rest2 = 1 - beta2, decay = learning rate * weight decay, rate = learning rate / (1 -
 * beta1^step), correction = 1 / (1 - beta2^step).
 */
export function adamW(
  parameter: usize,
  gradient: usize,
  mean: usize,
  square: usize,
  gradientScale: f32,
  rest1: f32,
  rest2: f32,
  decay: f32,
  rate: f32,
  correction: f32,
  epsilon: f32,
  first: i32,
  end: i32,
): void {
  const scales = f32x4.splat(gradientScale);
  const rests1 = f32x4.splat(rest1);
  const rests2 = f32x4.splat(rest2);
  const decays = f32x4.splat(decay);
  const rates = f32x4.splat(rate);
  const corrections = f32x4.splat(correction);
  const epsilons = f32x4.splat(epsilon);
  let p = f32Bytes(first);
  const fours = f32Bytes(first + ((end - first) & ~3));
  for (; p < fours; p += 16) {
    const g = f32x4.mul(v128.load(gradient + p), scales);
    const m = approach(v128.load(mean + p), g, rests1);
    const v = approach(v128.load(square + p), f32x4.mul(g, g), rests2);
    v128.store(mean + p, m);
    v128.store(square + p, v);
    const x = v128.load(parameter + p);
    v128.store(parameter + p, stepped(x, m, v, decays, rates, corrections, epsilons));
  }
  for (; p < f32Bytes(end); p += 4) {
    const g = f32x4.mul(v128.load32_zero(gradient + p), scales);
    const m = approach(v128.load32_zero(mean + p), g, rests1);
    const v = approach(v128.load32_zero(square + p), f32x4.mul(g, g), rests2);
    v128.store32_lane(mean + p, m, 0);
    v128.store32_lane(square + p, v, 0);
    const x = v128.load32_zero(parameter + p);
    v128.store32_lane(parameter + p, stepped(x, m, v, decays, rates, corrections, epsilons), 0);
  }
}

// @ts-ignore: decorator
@inline
function approach(old: v128, target: v128, rest: v128): v128 {
  return f32x4.add(old, f32x4.mul(rest, f32x4.sub(target, old)));
}

/** The decay and the step are added first: each alone may be below half a unit in the parameter's last place. */
// @ts-ignore: decorator
@inline
function stepped(x: v128, m: v128, v: v128, decay: v128, rate: v128, correction: v128, epsilon: v128): v128 {
  const root = f32x4.add(f32x4.sqrt(f32x4.mul(v, correction)), epsilon);
  const update = f32x4.add(f32x4.mul(decay, x), f32x4.div(f32x4.mul(rate, m), root));
  return f32x4.sub(x, update);
}
