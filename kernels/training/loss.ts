// Losses over rows of logits, each with its gradient in place of the logits. Sums over a vocabulary are of
// tens of thousands of terms and enter a logarithm: they are accumulated in f64.

import { exp4 } from "../exp";
import { exp1, maximum, scale } from "../softmax";
import { f32Bytes, zero } from "../vector";

/**
 * Rows first .. end - 1 of logits [rows, columns]: loss[r] = -log softmax(logits[r])[targets[r]], and logits[r] =
 * factor * (softmax - onehot). `targets` i32; -1: loss and gradient are 0.
 */
export function crossEntropy(
  logits: usize,
  targets: usize,
  loss: usize,
  columns: i32,
  factor: f32,
  first: i32,
  end: i32,
): void {
  for (let r = first; r < end; r++) {
    const row = logits + <usize>r * f32Bytes(columns);
    const target = load<i32>(targets + f32Bytes(r));
    if (target < 0) {
      zero(row, columns);
      store<f32>(loss + f32Bytes(r), 0);
      continue;
    }
    const at = row + f32Bytes(target);
    const largest = maximum(row, columns);
    const shifted = load<f32>(at) - largest;
    const total = expRow(row, columns, largest);
    store<f32>(loss + f32Bytes(r), <f32>(Math.log(total) - <f64>shifted));
    // p - 1 from the sum: a sure prediction's gradient would be lost in f32.
    const own = <f32>(((<f64>load<f32>(at) - total) / total) * <f64>factor);
    scale(row, columns, <f32>(<f64>factor / total));
    store<f32>(at, own);
  }
}

/**
 * Rows first .. end - 1: loss[r] = KL(p || q), p = softmax(reference[r]), q = softmax(logits[r]); then reference[r]
 * = p and logits[r] = factor * (q - p).
 */
export function divergence(
  reference: usize,
  logits: usize,
  loss: usize,
  columns: i32,
  factor: f32,
  first: i32,
  end: i32,
): void {
  const stride = f32Bytes(columns);
  const fours = f32Bytes(columns & ~3);
  for (let r = first; r < end; r++) {
    const x = reference + <usize>r * stride;
    const y = logits + <usize>r * stride;
    const xLargest = maximum(x, columns);
    const yLargest = maximum(y, columns);
    const xShift = f32x4.splat(xLargest);
    const yShift = f32x4.splat(yLargest);
    let xSums = f64x2.splat(0);
    let ySums = xSums;
    let dots = xSums;
    let p: usize = 0;
    for (; p < fours; p += 16) {
      const u = f32x4.sub(v128.load(x + p), xShift);
      const v = f32x4.sub(v128.load(y + p), yShift);
      const a = exp4(u);
      const b = exp4(v);
      v128.store(x + p, a);
      v128.store(y + p, b);
      xSums = addLanes(xSums, a);
      ySums = addLanes(ySums, b);
      dots = addLanes(dots, weighted(a, u, v));
    }
    let xTotal = f64x2.extract_lane(xSums, 0) + f64x2.extract_lane(xSums, 1);
    let yTotal = f64x2.extract_lane(ySums, 0) + f64x2.extract_lane(ySums, 1);
    let dot = f64x2.extract_lane(dots, 0) + f64x2.extract_lane(dots, 1);
    for (; p < stride; p += 4) {
      const u = load<f32>(x + p) - xLargest;
      const v = load<f32>(y + p) - yLargest;
      const a = exp1(u);
      const b = exp1(v);
      store<f32>(x + p, a);
      store<f32>(y + p, b);
      xTotal += <f64>a;
      yTotal += <f64>b;
      dot += <f64>f32x4.extract_lane(weighted(f32x4.splat(a), f32x4.splat(u), f32x4.splat(v)), 0);
    }
    // log p - log q = (u - log xTotal) - (v - log yTotal), and Σ p = 1.
    store<f32>(loss + f32Bytes(r), <f32>(dot / xTotal + Math.log(yTotal / xTotal)));
    scale(x, columns, <f32>(1 / xTotal));
    subtractRow(y, x, columns, <f32>(1 / yTotal), factor);
  }
}

/** a (u - v); 0 where a is 0, though u be -Infinity: p log p has the limit 0. */
// @ts-ignore: decorator
@inline
function weighted(a: v128, u: v128, v: v128): v128 {
  return v128.and(f32x4.mul(a, f32x4.sub(u, v)), f32x4.ne(a, f32x4.splat(0)));
}

/** Adds the four lanes of `v` to two sums in f64. */
// @ts-ignore: decorator
@inline
function addLanes(sums: v128, v: v128): v128 {
  const high = v128.shuffle<i64>(v, v, 1, 1);
  return f64x2.add(sums, f64x2.add(f64x2.promote_low_f32x4(v), f64x2.promote_low_f32x4(high)));
}

/** x = exp(x - shift); returns the sum. */
function expRow(x: usize, count: i32, shift: f32): f64 {
  const shifts = f32x4.splat(shift);
  let sums = f64x2.splat(0);
  for (; count >= 4; count -= 4, x += 16) {
    const e = exp4(f32x4.sub(v128.load(x), shifts));
    v128.store(x, e);
    sums = addLanes(sums, e);
  }
  let total = f64x2.extract_lane(sums, 0) + f64x2.extract_lane(sums, 1);
  for (; count > 0; count--, x += 4) {
    const e = exp1(load<f32>(x) - shift);
    store<f32>(x, e);
    total += <f64>e;
  }
  return total;
}

/** y = factor * (part * y - x) */
function subtractRow(y: usize, x: usize, count: i32, part: f32, factor: f32): void {
  const parts = f32x4.splat(part);
  const factors = f32x4.splat(factor);
  for (; count >= 4; count -= 4, x += 16, y += 16)
    v128.store(y, f32x4.mul(f32x4.sub(f32x4.mul(v128.load(y), parts), v128.load(x)), factors));
  for (; count > 0; count--, x += 4, y += 4)
    store<f32>(y, (load<f32>(y) * part - load<f32>(x)) * factor);
}
