// Attention's two products for one to four rows over packed keys and values, unpacked in registers: what one token of
// grouped heads needs, where unpacking to memory first costs as much as the products. Head sizes are multiples
// of 8. Every sum is made in the order of gemm.ts and outer.ts, so a row's result does not depend on which of
// them made it. Not exported from the module.
//
// Halves are used as they come, HALF_SCALE times too small, and the other side of each product is that much larger. That
// spares a multiplication for four numbers and changes no bit: scaling by a power of two is exact as long as nothing
// overflows (LARGEST_QUERY).

import { F16, fourBytes, fourHalves, HALF_PLACES, INT8_HEADER } from "./kv-cache";
import { add8 } from "./outer";
import { f32Bytes, multiplyAdd, sumLanes4 } from "./vector";

/** Queries must be smaller, or HALF_SCALE makes them infinite. */
export const LARGEST_QUERY: f32 = 32768;

// Numbers of rows, by their sizes, and of bytes: the constants that a function can be compiled for are types.
// @ts-ignore: decorator
@unmanaged
class One {
  a: u8;
}
// @ts-ignore: decorator
@unmanaged
class Two extends One {
  b: u8;
}
// @ts-ignore: decorator
@unmanaged
class Three extends Two {
  c: u8;
}
// @ts-ignore: decorator
@unmanaged
class Four extends Three {
  d: u8;
}
type Half = u16;
type Byte = u8;

/** Bytes of a row before its numbers. */
// @ts-ignore: decorator
@inline
function headerOf<Stored>(): usize {
  return sizeof<Stored>() == 2 ? 0 : INT8_HEADER;
}

/** What the numbers of `row` are unpacked with. */
// @ts-ignore: decorator
@inline
function unpackerOf<Stored>(row: usize): v128 {
  return sizeof<Stored>() == 2 ? v128.load(HALF_PLACES) : v128.load32_splat(row);
}

// @ts-ignore: decorator
@inline
function four<Stored>(x: usize, unpacker: v128): v128 {
  return sizeof<Stored>() == 2 ? fourHalves(x, unpacker) : fourBytes(x, unpacker);
}

/**
 * scores [rows, pitch bytes] = q [rows, headSize] keysᵀ for `length` keys in `format`, `stride` bytes apart; q is
 * HALF_SCALE times the queries where they are halves. Keys are taken by twos: one more score than an odd length is
 * written.
 */
export function scorePacked(
  format: i32,
  q: usize,
  keys: usize,
  stride: usize,
  scores: usize,
  pitch: usize,
  rows: i32,
  headSize: i32,
  length: i32,
): void {
  if (format == F16) scoreStored<Half>(q, keys, stride, scores, pitch, rows, headSize, length);
  else scoreStored<Byte>(q, keys, stride, scores, pitch, rows, headSize, length);
}

function scoreStored<Stored>(
  q: usize,
  keys: usize,
  stride: usize,
  scores: usize,
  pitch: usize,
  rows: i32,
  headSize: i32,
  length: i32,
): void {
  if (rows == 1) scoreRows<Stored, One>(q, keys, stride, scores, pitch, headSize, length);
  else if (rows == 2) scoreRows<Stored, Two>(q, keys, stride, scores, pitch, headSize, length);
  else if (rows == 3) scoreRows<Stored, Three>(q, keys, stride, scores, pitch, headSize, length);
  else scoreRows<Stored, Four>(q, keys, stride, scores, pitch, headSize, length);
}

function scoreRows<Stored, Rows>(
  q: usize,
  keys: usize,
  stride: usize,
  scores: usize,
  pitch: usize,
  headSize: i32,
  length: i32,
): void {
  const rows = offsetof<Rows>();
  const size = f32Bytes(headSize);
  for (; length > 0; length -= 2, keys += 2 * stride, scores += 8) {
    let a0 = f32x4.splat(0),
      a1 = a0,
      a2 = a0,
      a3 = a0,
      b0 = a0,
      b1 = a0,
      b2 = a0,
      b3 = a0;
    const other = length > 1 ? stride : 0;
    const ofA = unpackerOf<Stored>(keys);
    const ofB = unpackerOf<Stored>(keys + other);
    let key = keys + headerOf<Stored>();
    for (let at = q; at < q + size; at += 16, key += 4 * sizeof<Stored>()) {
      const a = four<Stored>(key, ofA);
      const b = four<Stored>(key + other, ofB);
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
 * out [rows, headSize] += scores [rows, pitch bytes] values for `length` values in `format`, `stride` bytes apart; scores
 * are HALF_SCALE times the weights where values are halves.
 */
export function addPacked(
  format: i32,
  scores: usize,
  pitch: usize,
  values: usize,
  stride: usize,
  out: usize,
  rows: i32,
  headSize: i32,
  length: i32,
): void {
  if (format == F16) addStored<Half>(scores, pitch, values, stride, out, rows, headSize, length);
  else addStored<Byte>(scores, pitch, values, stride, out, rows, headSize, length);
}

function addStored<Stored>(
  scores: usize,
  pitch: usize,
  values: usize,
  stride: usize,
  out: usize,
  rows: i32,
  headSize: i32,
  length: i32,
): void {
  if (rows == 1) addRows<Stored, One>(scores, pitch, values, stride, out, headSize, length);
  else if (rows == 2) addRows<Stored, Two>(scores, pitch, values, stride, out, headSize, length);
  else if (rows == 3) addRows<Stored, Three>(scores, pitch, values, stride, out, headSize, length);
  else addRows<Stored, Four>(scores, pitch, values, stride, out, headSize, length);
}

function addRows<Stored, Rows>(
  scores: usize,
  pitch: usize,
  values: usize,
  stride: usize,
  out: usize,
  headSize: i32,
  length: i32,
): void {
  const rows = offsetof<Rows>();
  const size = f32Bytes(headSize);
  let column = headerOf<Stored>();
  for (let at: usize = 0; at < size; at += 32, column += 8 * sizeof<Stored>()) {
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
    // Of halves it is the same for all rows.
    let unpacker = unpackerOf<Stored>(value);
    for (let k = length; k > 0; k--, value += stride, score += 4) {
      if (sizeof<Stored>() == 1) unpacker = unpackerOf<Stored>(value);
      const x = four<Stored>(value + column, unpacker);
      const y = four<Stored>(value + column + 4 * sizeof<Stored>(), unpacker);
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
