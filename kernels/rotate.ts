// The codec's rotation of activations, y = x diag(signs) (Q ⊗ H)ᵀ and its inverse: a Walsh-Hadamard transform
// inside each of m blocks, the small dense Q across them.

import { multiplyAccumulate } from "./outer";
import { f32Bytes, zero } from "./vector";

// Signs of the butterflies inside a vector, in memory because of V8 (see exp.ts).
const BUTTERFLIES: usize = memory.data<f32>([1, -1, 1, -1, 1, 1, -1, -1]);

/** Rows first .. end - 1; y may be x. `scratch`: `columns` f32 of this thread's own. */
export function rotate(
  x: usize,
  y: usize,
  signs: usize,
  q: usize,
  m: i32,
  columns: i32,
  inverse: bool,
  scratch: usize,
  first: i32,
  end: i32,
): void {
  const stride = f32Bytes(columns);
  const order = columns / m;
  const norm = <f32>(1.0 / Math.sqrt(<f64>order));
  const qRow = inverse ? 4 : f32Bytes(m);
  const qColumn = inverse ? f32Bytes(m) : 4;
  for (let r = first; r < end; r++) {
    const from = x + <usize>r * stride;
    const to = y + <usize>r * stride;
    scaleBy(from, inverse ? 0 : signs, scratch, columns, norm);
    for (let b = 0; b < m; b++) hadamard(scratch + <usize>b * f32Bytes(order), order);
    if (m == 1) {
      scaleBy(scratch, inverse ? signs : 0, to, columns, load<f32>(q));
    } else {
      zero(to, columns);
      multiplyAccumulate(q, qRow, qColumn, scratch, f32Bytes(order), to, f32Bytes(order), m, order, m, false);
      if (inverse) scaleBy(to, signs, to, columns, 1);
    }
  }
}

/** out = x * factor (* signs, unless 0). */
function scaleBy(x: usize, signs: usize, out: usize, count: i32, factor: f32): void {
  const factors = f32x4.splat(factor);
  const fours = f32Bytes(count & ~3);
  const all = f32Bytes(count);
  let p: usize = 0;
  if (signs) {
    for (; p < fours; p += 16)
      v128.store(out + p, f32x4.mul(f32x4.mul(v128.load(x + p), v128.load(signs + p)), factors));
    for (; p < all; p += 4) store<f32>(out + p, load<f32>(x + p) * load<f32>(signs + p) * factor);
  } else {
    for (; p < fours; p += 16) v128.store(out + p, f32x4.mul(v128.load(x + p), factors));
    for (; p < all; p += 4) store<f32>(out + p, load<f32>(x + p) * factor);
  }
}

/** Walsh-Hadamard transform in place, not normalised; `order` is a power of two. */
function hadamard(x: usize, order: i32): void {
  const end = x + f32Bytes(order);
  if (order < 4) {
    if (order == 2) {
      const a = load<f32>(x);
      const b = load<f32>(x, 4);
      store<f32>(x, a + b);
      store<f32>(x, a - b, 4);
    }
    return;
  }
  const odd = v128.load(BUTTERFLIES);
  const high = v128.load(BUTTERFLIES, 16);
  for (let p = x; p < end; p += 16) {
    let v = v128.load(p);
    v = f32x4.add(v128.shuffle<f32>(v, v, 1, 0, 3, 2), f32x4.mul(v, odd));
    v = f32x4.add(v128.shuffle<f32>(v, v, 2, 3, 0, 1), f32x4.mul(v, high));
    v128.store(p, v);
  }
  // Two stages a pass: half the loads and stores.
  let half: usize = 16;
  const bytes = f32Bytes(order);
  for (; half * 4 <= bytes; half *= 4) {
    for (let block = x; block < end; block += half * 4) {
      for (let p = block; p < block + half; p += 16) {
        const p2 = p + 2 * half;
        const a = v128.load(p);
        const b = v128.load(p + half);
        const c = v128.load(p2);
        const d = v128.load(p2 + half);
        const sumAB = f32x4.add(a, b);
        const sumCD = f32x4.add(c, d);
        const differenceAB = f32x4.sub(a, b);
        const differenceCD = f32x4.sub(c, d);
        v128.store(p, f32x4.add(sumAB, sumCD));
        v128.store(p + half, f32x4.add(differenceAB, differenceCD));
        v128.store(p2, f32x4.sub(sumAB, sumCD));
        v128.store(p2 + half, f32x4.sub(differenceAB, differenceCD));
      }
    }
  }
  if (half * 2 <= bytes) {
    for (let block = x; block < end; block += half * 2) {
      for (let p = block; p < block + half; p += 16) {
        const a = v128.load(p);
        const b = v128.load(p + half);
        v128.store(p, f32x4.add(a, b));
        v128.store(p + half, f32x4.sub(a, b));
      }
    }
  }
}
