// Attention's two products for two to four rows over f16 keys and values, unpacked in registers: what one token of
// grouped heads needs, where unpacking to memory first costs as much as the products. Head sizes are multiples
// of 8. Every sum is made in the order of gemm.ts and outer.ts, so a row's result does not depend on which of
// them made it. Not exported from the module. Unused rows point to the first one and are not stored.

import { unpackFour, unpackFourHigh } from "./kv-cache";
import { add8 } from "./outer";
import { f32Bytes, multiplyAdd, sumLanes } from "./vector";

/** scores [rows, pitch bytes] = q [rows, headSize] keysᵀ for `length` keys, `stride` bytes apart. */
export function scoreHalves(
  q: usize,
  keys: usize,
  stride: usize,
  scores: usize,
  pitch: usize,
  rows: i32,
  headSize: i32,
  length: i32,
): void {
  const size = f32Bytes(headSize);
  const q1 = q + size;
  const q2 = rows > 2 ? q1 + size : q;
  const q3 = rows > 3 ? q2 + size : q;
  for (; length > 0; length--, keys += stride, scores += 4) {
    let a0 = f32x4.splat(0),
      a1 = a0,
      a2 = a0,
      a3 = a0;
    let key = keys;
    for (let at: usize = 0; at < size; at += 32, key += 16) {
      const halves = v128.load(key);
      const low = unpackFour(halves);
      a0 = multiplyAdd(low, v128.load(q + at), a0);
      a1 = multiplyAdd(low, v128.load(q1 + at), a1);
      a2 = multiplyAdd(low, v128.load(q2 + at), a2);
      a3 = multiplyAdd(low, v128.load(q3 + at), a3);
      const high = unpackFourHigh(halves);
      a0 = multiplyAdd(high, v128.load(q + at, 16), a0);
      a1 = multiplyAdd(high, v128.load(q1 + at, 16), a1);
      a2 = multiplyAdd(high, v128.load(q2 + at, 16), a2);
      a3 = multiplyAdd(high, v128.load(q3 + at, 16), a3);
    }
    store<f32>(scores, sumLanes(a0));
    store<f32>(scores + pitch, sumLanes(a1));
    if (rows > 2) store<f32>(scores + 2 * pitch, sumLanes(a2));
    if (rows > 3) store<f32>(scores + 3 * pitch, sumLanes(a3));
  }
}

/** out [rows, headSize] += scores [rows, pitch bytes] values for `length` values, `stride` bytes apart. */
export function addHalves(
  scores: usize,
  pitch: usize,
  values: usize,
  stride: usize,
  out: usize,
  rows: i32,
  headSize: i32,
  length: i32,
): void {
  const size = f32Bytes(headSize);
  const s1 = pitch;
  const s2 = rows > 2 ? 2 * pitch : 0;
  const s3 = rows > 3 ? 3 * pitch : 0;
  for (let at: usize = 0; at < size; at += 32, values += 16) {
    let a0 = f32x4.splat(0),
      a1 = a0,
      a2 = a0,
      a3 = a0,
      b0 = a0,
      b1 = a0,
      b2 = a0,
      b3 = a0;
    let value = values;
    let score = scores;
    for (let k = length; k > 0; k--, value += stride, score += 4) {
      const halves = v128.load(value);
      const low = unpackFour(halves);
      const high = unpackFourHigh(halves);
      let s = v128.load32_splat(score);
      a0 = multiplyAdd(low, s, a0);
      b0 = multiplyAdd(high, s, b0);
      s = v128.load32_splat(score + s1);
      a1 = multiplyAdd(low, s, a1);
      b1 = multiplyAdd(high, s, b1);
      s = v128.load32_splat(score + s2);
      a2 = multiplyAdd(low, s, a2);
      b2 = multiplyAdd(high, s, b2);
      s = v128.load32_splat(score + s3);
      a3 = multiplyAdd(low, s, a3);
      b3 = multiplyAdd(high, s, b3);
    }
    add8(out + at, a0, b0);
    add8(out + size + at, a1, b1);
    if (rows > 2) add8(out + 2 * size + at, a2, b2);
    if (rows > 3) add8(out + 3 * size + at, a3, b3);
  }
}
