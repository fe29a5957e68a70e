// Decoding of trellis-coded weights to f32 rows (docs/format.md, "Trellis"): byte shuffles give the window's
// byte u of 16 rows at once, then each row copies its V weights from a table of the 256 possible groups.

import { multiplyTransposed } from "./gemm";
import { scatter } from "./trellis-rows";
import { PLAN_ENTRY, placeOf, streamBytes, strideOf, windowBytes } from "./trellis-window";
import { f32Bytes } from "./vector";

/** The 256 groups of one width: out[u][v] = A[u & 15][v] + B[u >> 4][v]. `tables` is A [16][width], B [16][width]. */
export function trellisExpand(tables: usize, width: i32, out: usize): void {
  const row = (<usize>width) << 2;
  for (let u: usize = 0; u < 256; u++) {
    const a = tables + (u & 15) * row;
    const b = tables + (16 + (u >> 4)) * row;
    for (let v: usize = 0; v < row; v += 4) store<f32>(out + u * row + v, load<f32>(a + v) + load<f32>(b + v));
  }
}

/**
 * Rows at positions first .. first + count - 1 (both multiples of 16) of a coded matrix, without their scales,
 * `stride` bytes apart at `out`. The codes of its `pairs` of groups are in tiles of `tileSteps` steps. `plan` has an entry for each position of the width pattern, whose groups have
 * weights of `size` bytes: 4, or 2. `scratch`: 16 bytes of this thread's own.
 */
export function trellisDecode(
  codes: usize,
  tileSteps: i32,
  pairs: i32,
  columns: i32,
  plan: usize,
  patternLength: i32,
  first: i32,
  count: i32,
  out: usize,
  stride: usize,
  scratch: usize,
  size: i32,
): void {
  const mask = i8x16.splat(15);
  const step = first >> 4;
  const place = placeOf(codes, pairs, tileSteps, step);
  const placeBefore = placeOf(codes, pairs, tileSteps, step - 1);
  const placeTwoBefore = placeOf(codes, pairs, tileSteps, step - 2);
  const toNext = streamBytes(tileSteps);
  const toNextTile = <usize>(pairs - 1) * toNext;
  let position = 0;
  let group = 0;
  for (let column = 0; column < columns; group++) {
    const entry = plan + <usize>position * PLAN_ENTRY;
    const width = load<i32>(entry);
    const table = <usize>load<u32>(entry, 4);
    const maps = <usize>load<u32>(entry, 8);
    if (++position == patternLength) position = 0;
    const pair = <usize>(group >> 1);
    let p = place + pair * toNext;
    let left = tileSteps - (step % tileSteps);
    let before = v128.load(placeBefore + pair * strideOf(tileSteps, step - 1));
    let twoBefore = v128.load(placeTwoBefore + pair * strideOf(tileSteps, step - 2));
    const high = (group & 1) == 1;
    const used = min(width, columns - column);
    for (let r = 0; r < count; r += 16) {
      const now = v128.load(p);
      // Two calls, so that each is compiled for its constant.
      const u = high
        ? windowBytes(now, before, twoBefore, maps, true, mask)
        : windowBytes(now, before, twoBefore, maps, false, mask);
      twoBefore = before;
      before = now;
      v128.store(scratch, u);
      const to = out + <usize>r * stride + <usize>(column * size);
      copyGroups(scratch, table, width * size, used * size, to, stride);
      p += 16;
      if (--left == 0) {
        p += toNextTile;
        left = tileSteps;
      }
    }
    column += width;
  }
}

/** Copies for each of 16 rows the first `used` of its group's bytes. */
// @ts-ignore: decorator
@inline
function copyGroups(bytes: usize, table: usize, length: i32, used: i32, out: usize, stride: usize): void {
  const end = bytes + 16;
  if (used != length) {
    for (let b = bytes; b < end; b++, out += stride) {
      const from = table + <usize>(<i32>load<u8>(b) * length);
      for (let v = 0; v < used; v += 2) store<u16>(out + v, load<u16>(from + v));
    }
  } else if (length == 16) {
    for (let b = bytes; b < end; b++, out += stride)
      v128.store(out, v128.load(table + ((<usize>load<u8>(b)) << 4)));
  } else if (length == 12) {
    for (let b = bytes; b < end; b++, out += stride) {
      const from = table + <usize>load<u8>(b) * 12;
      store<u64>(out, load<u64>(from));
      store<u32>(out, load<u32>(from, 8), 8);
    }
  } else if (length == 8) {
    for (let b = bytes; b < end; b++, out += stride)
      store<u64>(out, load<u64>(table + ((<usize>load<u8>(b)) << 3)));
  } else if (length == 6) {
    for (let b = bytes; b < end; b++, out += stride) {
      const from = table + <usize>load<u8>(b) * 6;
      store<u32>(out, load<u32>(from));
      store<u16>(out, load<u16>(from, 4), 4);
    }
  } else if (length == 4) {
    for (let b = bytes; b < end; b++, out += stride)
      store<u32>(out, load<u32>(table + ((<usize>load<u8>(b)) << 2)));
  } else {
    for (let b = bytes; b < end; b++, out += stride)
      store<u16>(out, load<u16>(table + ((<usize>load<u8>(b)) << 1)));
  }
}

/**
 * y [tokens, rows] = x [tokens, columns] wᵀ for the rows at positions first .. end - 1 (multiples of 16) of a
 * coded matrix: decodes `tileRows` rows (a multiple of 16) to `tile`, multiplies to `products` [tokens,
 * tileRows], scales and puts each where `rowAt` says. The tile's rows are `tileStride` bytes apart: not a
 * multiple of 4096, or 16 rows would share one set of L1. `scratch`: 16 bytes. All three are this thread's own.
 */
export function trellisMatmul(
  codes: usize,
  tileSteps: i32,
  pairs: i32,
  columns: i32,
  plan: usize,
  patternLength: i32,
  rowAt: usize,
  scales: usize,
  rows: i32,
  x: usize,
  y: usize,
  tokens: i32,
  tile: usize,
  tileRows: i32,
  tileStride: usize,
  products: usize,
  scratch: usize,
  first: i32,
  end: i32,
): void {
  const xStride = f32Bytes(columns);
  const stride = f32Bytes(tileRows);
  for (let p = first; p < end; p += tileRows) {
    const count = min(tileRows, end - p);
    trellisDecode(
      codes,
      tileSteps,
      pairs,
      columns,
      plan,
      patternLength,
      p,
      count,
      tile,
      tileStride,
      scratch,
      4,
    );
    multiplyTransposed(x, xStride, tile, tileStride, products, stride, tokens, columns, count, false);
    for (let t = 0; t < tokens; t++)
      scatter(
        products + <usize>t * stride,
        rowAt + f32Bytes(p),
        scales,
        y + <usize>t * f32Bytes(rows),
        count,
      );
  }
}

/** y [i, columns] = the row at position positions[i] with its scale, for i in first .. end - 1. */
export function trellisGather(
  codes: usize,
  tileSteps: i32,
  pairs: i32,
  columns: i32,
  plan: usize,
  patternLength: i32,
  rowAt: usize,
  scales: usize,
  positions: usize,
  y: usize,
  first: i32,
  end: i32,
): void {
  const toNext = streamBytes(tileSteps);
  for (let i = first; i < end; i++) {
    const at = load<i32>(positions + f32Bytes(i));
    const scale = load<f32>(scales + f32Bytes(load<i32>(rowAt + f32Bytes(at))));
    const step = at >> 4;
    const lane = <usize>(at & 15);
    let place = placeOf(codes, pairs, tileSteps, step) + lane;
    let before = placeOf(codes, pairs, tileSteps, step - 1) + lane;
    let twoBefore = placeOf(codes, pairs, tileSteps, step - 2) + lane;
    let to = y + <usize>i * f32Bytes(columns);
    let position = 0;
    let group = 0;
    for (let column = 0; column < columns; group++) {
      const entry = plan + <usize>position * PLAN_ENTRY;
      const width = load<i32>(entry);
      const maps = <usize>load<u32>(entry, 8);
      if (++position == patternLength) position = 0;
      const shift = (group & 1) << 2;
      const n = code(place, shift);
      const u =
        (n | (n << 4)) ^
        load<u8>(maps + <usize>code(before, shift)) ^
        load<u8>(maps + <usize>code(twoBefore, shift), 16);
      const from = <usize>load<u32>(entry, 4) + f32Bytes(<i32>u * width);
      const used = f32Bytes(min(width, columns - column));
      for (let v: usize = 0; v < used; v += 4, to += 4) store<f32>(to, load<f32>(from + v) * scale);
      column += width;
      if (group & 1) {
        place += toNext;
        before += strideOf(tileSteps, step - 1);
        twoBefore += strideOf(tileSteps, step - 2);
      }
    }
  }
}

// @ts-ignore: decorator
@inline
function code(place: usize, shift: i32): u8 {
  return (load<u8>(place) >> <u8>shift) & 15;
}
