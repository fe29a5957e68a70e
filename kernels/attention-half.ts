// Attention's two products for one to four rows over f16 keys and values, unpacked in registers: what one token of
// grouped heads needs, where unpacking to memory first costs as much as the products. Head sizes are multiples
// of 8. Every sum is made in the order of gemm.ts and outer.ts, so a row's result does not depend on which of
// them made it. Not exported from the module.
//
// Halves are used as they come, HALF_SCALE times too small, and the other side of each product is that much larger. That
// spares a multiplication for four numbers and changes no bit: scaling by a power of two is exact as long as nothing
// overflows (LARGEST_QUERY).

import { fourHalves, HALF_PLACES } from "./kv-cache";
import { add8 } from "./outer";
import { f32Bytes, multiplyAdd, sumLanes4 } from "./vector";

/** Queries must be smaller, or HALF_SCALE makes them infinite. */
export const LARGEST_QUERY: f32 = 32768;

/**
 * scores [rows, pitch bytes] = q [rows, headSize] keysᵀ for `length` keys, `stride` bytes apart; q is HALF_SCALE times
 * the queries. Keys are taken by twos: one more score than an odd length is written.
 */
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
  if (rows == 1) scoreOne(q, keys, stride, scores, pitch, headSize, length);
  else if (rows == 2) scoreTwo(q, keys, stride, scores, pitch, headSize, length);
  else if (rows == 3) scoreThree(q, keys, stride, scores, pitch, headSize, length);
  else scoreFour(q, keys, stride, scores, pitch, headSize, length);
}

// Functions of their own, as arms of one condition would be made one loop again.
function scoreOne(q: usize, keys: usize, stride: usize, scores: usize, pitch: usize, headSize: i32, length: i32): void {
  scoreRows(1, q, keys, stride, scores, pitch, headSize, length);
}
function scoreTwo(q: usize, keys: usize, stride: usize, scores: usize, pitch: usize, headSize: i32, length: i32): void {
  scoreRows(2, q, keys, stride, scores, pitch, headSize, length);
}
function scoreThree(q: usize, keys: usize, stride: usize, scores: usize, pitch: usize, headSize: i32, length: i32): void {
  scoreRows(3, q, keys, stride, scores, pitch, headSize, length);
}
function scoreFour(q: usize, keys: usize, stride: usize, scores: usize, pitch: usize, headSize: i32, length: i32): void {
  scoreRows(4, q, keys, stride, scores, pitch, headSize, length);
}

/** The same for a constant number of rows. */
// @ts-ignore: decorator
@inline
function scoreRows(
  rows: i32,
  q: usize,
  keys: usize,
  stride: usize,
  scores: usize,
  pitch: usize,
  headSize: i32,
  length: i32,
): void {
  const size = f32Bytes(headSize);
  const places = v128.load(HALF_PLACES);
  for (; length > 0; length -= 2, keys += 2 * stride, scores += 8) {
    let a0 = f32x4.splat(0),
      a1 = a0,
      a2 = a0,
      a3 = a0,
      b0 = a0,
      b1 = a0,
      b2 = a0,
      b3 = a0;
    let key = keys;
    const other = length > 1 ? stride : 0;
    for (let at = q; at < q + size; at += 16, key += 8) {
      const a = fourHalves(key, places);
      const b = fourHalves(key + other, places);
      let query = v128.load(at);
      a0 = multiplyAdd(a, query, a0);
      b0 = multiplyAdd(b, query, b0);
      if (rows > 1) {
        query = v128.load(at + size);
        a1 = multiplyAdd(a, query, a1);
        b1 = multiplyAdd(b, query, b1);
      }
      if (rows > 2) {
        query = v128.load(at + 2 * size);
        a2 = multiplyAdd(a, query, a2);
        b2 = multiplyAdd(b, query, b2);
      }
      if (rows > 3) {
        query = v128.load(at + 3 * size);
        a3 = multiplyAdd(a, query, a3);
        b3 = multiplyAdd(b, query, b3);
      }
    }
    const first = sumLanes4(a0, b0, a1, b1);
    v128.store64_lane(scores, first, 0);
    if (rows > 1) v128.store64_lane(scores + pitch, first, 1);
    if (rows > 2) {
      const second = sumLanes4(a2, b2, a3, b3);
      v128.store64_lane(scores + 2 * pitch, second, 0);
      if (rows > 3) v128.store64_lane(scores + 3 * pitch, second, 1);
    }
  }
}

/**
 * out [rows, headSize] += scores [rows, pitch bytes] values for `length` values, `stride` bytes apart; scores are
 * HALF_SCALE times the weights.
 */
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
  if (rows == 1) addOne(scores, pitch, values, stride, out, headSize, length);
  else if (rows == 2) addTwo(scores, pitch, values, stride, out, headSize, length);
  else if (rows == 3) addThree(scores, pitch, values, stride, out, headSize, length);
  else addFour(scores, pitch, values, stride, out, headSize, length);
}

function addOne(scores: usize, pitch: usize, values: usize, stride: usize, out: usize, headSize: i32, length: i32): void {
  addRows(1, scores, pitch, values, stride, out, headSize, length);
}
function addTwo(scores: usize, pitch: usize, values: usize, stride: usize, out: usize, headSize: i32, length: i32): void {
  addRows(2, scores, pitch, values, stride, out, headSize, length);
}
function addThree(scores: usize, pitch: usize, values: usize, stride: usize, out: usize, headSize: i32, length: i32): void {
  addRows(3, scores, pitch, values, stride, out, headSize, length);
}
function addFour(scores: usize, pitch: usize, values: usize, stride: usize, out: usize, headSize: i32, length: i32): void {
  addRows(4, scores, pitch, values, stride, out, headSize, length);
}

/** The same for a constant number of rows. */
// @ts-ignore: decorator
@inline
function addRows(
  rows: i32,
  scores: usize,
  pitch: usize,
  values: usize,
  stride: usize,
  out: usize,
  headSize: i32,
  length: i32,
): void {
  const size = f32Bytes(headSize);
  const places = v128.load(HALF_PLACES);
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
      const x = fourHalves(value, places);
      const y = fourHalves(value + 8, places);
      let s = v128.load32_splat(score);
      a0 = multiplyAdd(x, s, a0);
      b0 = multiplyAdd(y, s, b0);
      if (rows > 1) {
        s = v128.load32_splat(score + pitch);
        a1 = multiplyAdd(x, s, a1);
        b1 = multiplyAdd(y, s, b1);
      }
      if (rows > 2) {
        s = v128.load32_splat(score + 2 * pitch);
        a2 = multiplyAdd(x, s, a2);
        b2 = multiplyAdd(y, s, b2);
      }
      if (rows > 3) {
        s = v128.load32_splat(score + 3 * pitch);
        a3 = multiplyAdd(x, s, a3);
        b3 = multiplyAdd(y, s, b3);
      }
    }
    add8(out + at, a0, b0);
    if (rows > 1) add8(out + size + at, a1, b1);
    if (rows > 2) add8(out + 2 * size + at, a2, b2);
    if (rows > 3) add8(out + 3 * size + at, a3, b3);
  }
}
