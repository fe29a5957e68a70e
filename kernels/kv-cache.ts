// Keys and values in fewer bits (docs: src/compute/kv-format.ts): written once a token, unpacked to f32 by blocks when
// they are attended to. A row is one head of one token. Formats: 1 is f16, 2 is int8 with a scale.

import { f32Bytes } from "./vector";

export const F16: i32 = 1;
/** Bytes of an int8 row before its numbers: the scale. */
export const INT8_HEADER: usize = 4;

/** Bytes of a row, a multiple of 4. */
export function packedRowBytes(format: i32, headSize: i32): usize {
  if (format == F16) return ((<usize>headSize << 1) + 3) & ~3;
  return INT8_HEADER + ((<usize>headSize + 3) & ~3);
}

/** Rows first .. end - 1 of x [tokens, kvHeads, headSize] f32 -> y [kvHeads, capacity] rows, from its first on. */
export function packCache(
  x: usize,
  y: usize,
  format: i32,
  kvHeads: i32,
  capacity: i32,
  headSize: i32,
  first: i32,
  end: i32,
): void {
  const bytes = packedRowBytes(format, headSize);
  for (let row = first; row < end; row++)
    packRow(x + <usize>row * f32Bytes(headSize), y + cacheRow(row, kvHeads, capacity) * bytes, format, headSize);
}

/** Rows first .. end - 1 of y [tokens, kvHeads, headSize] f32 from packed x [kvHeads, capacity]. */
export function unpackCache(
  x: usize,
  y: usize,
  format: i32,
  kvHeads: i32,
  capacity: i32,
  headSize: i32,
  first: i32,
  end: i32,
): void {
  const bytes = packedRowBytes(format, headSize);
  for (let row = first; row < end; row++) {
    const to = y + <usize>row * f32Bytes(headSize);
    unpackRows(x + cacheRow(row, kvHeads, capacity) * bytes, bytes, to, format, headSize, 1);
  }
}

/** Where row (token, head) of [tokens, kvHeads] is in [kvHeads, capacity]. */
// @ts-ignore: decorator
@inline
function cacheRow(row: i32, kvHeads: i32, capacity: i32): usize {
  return <usize>(row % kvHeads) * capacity + row / kvHeads;
}

/** One row. */
export function packRow(x: usize, y: usize, format: i32, headSize: i32): void {
  if (format == F16) packHalf(x, y, headSize);
  else packInt8(x, y, headSize);
}

/** `count` rows, `stride` bytes apart -> y [count, headSize] f32. */
export function unpackRows(
  x: usize,
  stride: usize,
  y: usize,
  format: i32,
  headSize: i32,
  count: i32,
): void {
  for (; count > 0; count--, x += stride, y += f32Bytes(headSize)) {
    if (format == F16) unpackHalf(x, y, headSize);
    else unpackInt8(x, y, headSize);
  }
}

/** To nearest even; what is too large for f16 becomes its largest number. */
function packHalf(x: usize, y: usize, count: i32): void {
  for (; count > 0; count--, x += 4, y += 2) {
    const bits = load<u32>(x);
    const magnitude = bits & 0x7fffffff;
    let half: u32;
    if (magnitude >= 0x477ff000) half = 0x7bff;
    else if (magnitude < 0x38800000) {
      // Subnormal: adding 1/2 rounds to units of 2^-24, the f16's.
      half = reinterpret<u32>(reinterpret<f32>(magnitude) + <f32>0.5) - 0x3f000000;
    } else half = (magnitude + 0xfff + ((magnitude >> 13) & 1) - 0x38000000) >> 13;
    store<u16>(y, <u16>(half | ((bits >> 16) & 0x8000)));
  }
}

// Sign, exponent and fraction of a half in f32's places; in memory because of V8 (see exp.ts).
export const HALF_PLACES: usize = memory.data<u32>([0x8fffffff, 0x8fffffff, 0x8fffffff, 0x8fffffff], 16);
/** 2^112. */
export const HALF_SCALE: f32 = reinterpret<f32>(0x77800000);

/**
 * Four halves as f32 but for a factor of HALF_SCALE: exponent and fraction moved to f32's places stand for 2^-112 of the
 * number, subnormals included. `places`: HALF_PLACES.
 */
// @ts-ignore: decorator
@inline
export function fourHalves(x: usize, places: v128): v128 {
  return v128.and(i32x4.shl(v128.load16x4_s(x), 13), places);
}

function unpackHalf(x: usize, y: usize, count: i32): void {
  const places = v128.load(HALF_PLACES);
  const factor = f32x4.splat(HALF_SCALE);
  for (; count >= 4; count -= 4, x += 8, y += 16) v128.store(y, f32x4.mul(fourHalves(x, places), factor));
  for (; count > 0; count--, x += 2, y += 4) {
    const bits = ((<i32>load<i16>(x)) << 13) & 0x8fffffff;
    store<f32>(y, reinterpret<f32>(bits) * HALF_SCALE);
  }
}

/** Scale f32 (largest magnitude / 127), then one byte a number. */
function packInt8(x: usize, y: usize, count: i32): void {
  let largest: f32 = 0;
  for (let i = 0; i < count; i++) largest = max(largest, abs(load<f32>(x + f32Bytes(i))));
  const scale = largest / <f32>127;
  store<f32>(y, scale);
  const inverse: f32 = scale > 0 ? <f32>1 / scale : 0;
  for (let i = 0; i < count; i++) {
    const value = nearest(load<f32>(x + f32Bytes(i)) * inverse);
    store<i8>(y + INT8_HEADER + <usize>i, <i8>(<i32>max(<f32>-127, min(<f32>127, value))));
  }
}

/** Four signed bytes times `scales`. */
// @ts-ignore: decorator
@inline
export function fourBytes(x: usize, scales: v128): v128 {
  const wide = i32x4.extend_low_i16x8_s(i16x8.extend_low_i8x16_s(v128.load32_zero(x)));
  return f32x4.mul(f32x4.convert_i32x4_s(wide), scales);
}

function unpackInt8(x: usize, y: usize, count: i32): void {
  const scale = load<f32>(x);
  const scales = f32x4.splat(scale);
  x += INT8_HEADER;
  for (; count >= 4; count -= 4, x += 4, y += 16) v128.store(y, fourBytes(x, scales));
  for (; count > 0; count--, x++, y += 4) store<f32>(y, <f32>load<i8>(x) * scale);
}
