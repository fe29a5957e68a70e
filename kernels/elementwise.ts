// Row-wise and element-wise operations: RMSNorm, rotary embedding, SiLU, softmax, addition.

import { exp4 } from "./exp";
import { softmaxRow } from "./softmax";
import { f32Bytes, multiplyAdd, sumLanes } from "./vector";

/** y = x / sqrt(mean(x²) + epsilon) * weight for rows first .. end - 1; y may be x. */
export function rmsNorm(
  x: usize,
  weight: usize,
  y: usize,
  columns: i32,
  epsilon: f32,
  first: i32,
  end: i32,
): void {
  const stride = f32Bytes(columns);
  const fours = f32Bytes(columns & ~3);
  for (let r = first; r < end; r++) {
    const from = x + <usize>r * stride;
    const to = y + <usize>r * stride;
    let a = f32x4.splat(0);
    let b = a;
    let p: usize = 0;
    for (; p + 16 < fours; p += 32) {
      const u = v128.load(from + p);
      const v = v128.load(from + p, 16);
      a = multiplyAdd(u, u, a);
      b = multiplyAdd(v, v, b);
    }
    if (p < fours) {
      const u = v128.load(from + p);
      a = multiplyAdd(u, u, a);
    }
    let squares = sumLanes(f32x4.add(a, b));
    for (p = fours; p < stride; p += 4) squares += load<f32>(from + p) * load<f32>(from + p);
    const scale = <f32>1 / sqrt<f32>(squares / <f32>columns + epsilon);
    const scales = f32x4.splat(scale);
    for (p = 0; p < fours; p += 16)
      v128.store(to + p, f32x4.mul(f32x4.mul(v128.load(from + p), scales), v128.load(weight + p)));
    for (; p < stride; p += 4) store<f32>(to + p, load<f32>(from + p) * scale * load<f32>(weight + p));
  }
}

/** Rotary embedding in place, tokens first .. end - 1; `cosines` and `sines` start at the position of token 0. */
export function rope(
  x: usize,
  cosines: usize,
  sines: usize,
  heads: i32,
  headSize: i32,
  first: i32,
  end: i32,
): void {
  const half = f32Bytes(headSize >> 1);
  const fours = half & ~15;
  for (let t = first; t < end; t++) {
    const cosine = cosines + <usize>t * half;
    const sine = sines + <usize>t * half;
    let low = x + <usize>t * <usize>heads * 2 * half;
    for (let h = 0; h < heads; h++, low += 2 * half) {
      const high = low + half;
      let p: usize = 0;
      for (; p < fours; p += 16) {
        const a = v128.load(low + p);
        const b = v128.load(high + p);
        const c = v128.load(cosine + p);
        const s = v128.load(sine + p);
        v128.store(low + p, f32x4.sub(f32x4.mul(a, c), f32x4.mul(b, s)));
        v128.store(high + p, f32x4.add(f32x4.mul(b, c), f32x4.mul(a, s)));
      }
      for (; p < half; p += 4) {
        const a = load<f32>(low + p);
        const b = load<f32>(high + p);
        const c = load<f32>(cosine + p);
        const s = load<f32>(sine + p);
        store<f32>(low + p, a * c - b * s);
        store<f32>(high + p, b * c + a * s);
      }
    }
  }
}

/** gate = gate / (1 + exp(-gate)) * up over elements first .. end - 1. */
export function siluMultiply(gate: usize, up: usize, first: i32, end: i32): void {
  const one = f32x4.splat(1);
  let g = gate + f32Bytes(first);
  let u = up + f32Bytes(first);
  let left = end - first;
  for (; left >= 4; left -= 4, g += 16, u += 16) {
    const x = v128.load(g);
    v128.store(g, f32x4.mul(f32x4.div(x, f32x4.add(one, exp4(f32x4.neg(x)))), v128.load(u)));
  }
  for (; left > 0; left--, g += 4, u += 4) {
    const x = v128.load32_zero(g);
    const y = f32x4.mul(f32x4.div(x, f32x4.add(one, exp4(f32x4.neg(x)))), v128.load32_zero(u));
    store<f32>(g, f32x4.extract_lane(y, 0));
  }
}

/** y += x over elements first .. end - 1. */
export function add(y: usize, x: usize, first: i32, end: i32): void {
  let p = y + f32Bytes(first);
  let q = x + f32Bytes(first);
  let left = end - first;
  for (; left >= 4; left -= 4, p += 16, q += 16) v128.store(p, f32x4.add(v128.load(p), v128.load(q)));
  for (; left > 0; left--, p += 4, q += 4) store<f32>(p, load<f32>(p) + load<f32>(q));
}

/** Softmax of rows first .. end - 1 in place. */
export function softmax(x: usize, columns: i32, first: i32, end: i32): void {
  for (let r = first; r < end; r++) softmaxRow(x + <usize>r * f32Bytes(columns), columns);
}
