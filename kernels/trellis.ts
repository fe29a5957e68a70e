// Decoding of trellis-coded weights to f32 rows (docs/format.md, "Trellis"): byte shuffles give the window's
// byte u of 16 rows at once, then each row copies its V weights from a table of the 256 possible groups.

import { scaleColumns } from "./elementwise";
import { multiplyTransposed } from "./gemm";
import { firstPlainRow, predecessorBlock, PLAN_ENTRY, predecessor, windowBytes } from "./trellis-window";
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
 * Rows row .. row + count - 1 of a coded matrix, without their scales, `stride` bytes apart at `out`. `row` is
 * a multiple of 16. `plan` has an entry for each position of the width pattern: the width, the address of its
 * 256 groups (`trellisExpand`) and of its maps (16 bytes a code of the window). `scratch`: 16 bytes of this
 * thread's own. Up to 15 bytes after the codes are read.
 */
export function trellisDecode(
  codes: usize,
  rows: i32,
  columns: i32,
  plan: usize,
  patternLength: i32,
  codeBits: i32,
  interleave: i32,
  tailBiting: bool,
  row: i32,
  count: i32,
  out: usize,
  stride: usize,
  scratch: usize,
): void {
  const reach = firstPlainRow(codeBits, interleave);
  const mask = i8x16.splat(15);
  const three = codeBits == 3;
  let position = 0;
  let group = 0;
  for (let column = 0; column < columns; group++) {
    const entry = plan + <usize>position * PLAN_ENTRY;
    const width = load<i32>(entry);
    const table = <usize>load<u32>(entry, 4);
    const maps = <usize>load<u32>(entry, 8);
    if (++position == patternLength) position = 0;
    const stream = codes + <usize>(group >> 1) * <usize>rows;
    const high = (group & 1) == 1;
    const used = min(width, columns - column);
    for (let r = row; r < row + count; r += 16) {
      const p = stream + <usize>r;
      let c1: v128, c2: v128, c3: v128;
      const c0 = v128.load(p);
      if (r >= reach) {
        c1 = v128.load(p - <usize>interleave);
        c2 = v128.load(p - 2 * <usize>interleave);
        c3 = three ? v128.load(p - 3 * <usize>interleave) : c0;
      } else {
        c1 = predecessorBlock(stream, r, 1, interleave, tailBiting, rows, scratch);
        c2 = predecessorBlock(stream, r, 2, interleave, tailBiting, rows, scratch);
        c3 = three ? predecessorBlock(stream, r, 3, interleave, tailBiting, rows, scratch) : c0;
      }
      let u: v128;
      // Four calls, so that each is compiled for its constants.
      if (high) {
        if (three) u = windowBytes(maps, c0, c1, c2, c3, true, true, mask);
        else u = windowBytes(maps, c0, c1, c2, c3, true, false, mask);
      } else {
        if (three) u = windowBytes(maps, c0, c1, c2, c3, false, true, mask);
        else u = windowBytes(maps, c0, c1, c2, c3, false, false, mask);
      }
      v128.store(scratch, u);
      const to = out + <usize>(r - row) * stride + ((<usize>column) << 2);
      copyGroups(scratch, table, width, used, to, stride, min(16, row + count - r));
    }
    column += width;
  }
}

/** Copies for each of `count` rows the first `used` weights of its group. */
// @ts-ignore: decorator
@inline
function copyGroups(
  bytes: usize,
  table: usize,
  width: i32,
  used: i32,
  out: usize,
  stride: usize,
  count: i32,
): void {
  const end = bytes + <usize>count;
  if (used != width) {
    for (let b = bytes; b < end; b++, out += stride) {
      const from = table + f32Bytes(<i32>load<u8>(b) * width);
      for (let v: usize = 0; v < f32Bytes(used); v += 4) store<f32>(out + v, load<f32>(from + v));
    }
  } else if (width == 4) {
    for (let b = bytes; b < end; b++, out += stride)
      v128.store(out, v128.load(table + ((<usize>load<u8>(b)) << 4)));
  } else if (width == 3) {
    for (let b = bytes; b < end; b++, out += stride) {
      const from = table + <usize>load<u8>(b) * 12;
      store<u64>(out, load<u64>(from));
      store<u32>(out, load<u32>(from, 8), 8);
    }
  } else if (width == 2) {
    for (let b = bytes; b < end; b++, out += stride)
      store<u64>(out, load<u64>(table + ((<usize>load<u8>(b)) << 3)));
  } else {
    for (let b = bytes; b < end; b++, out += stride)
      store<u32>(out, load<u32>(table + ((<usize>load<u8>(b)) << 2)));
  }
}

/**
 * y [tokens, rows] = x [tokens, columns] wᵀ for rows first .. end - 1 (first a multiple of 16) of a coded
 * matrix: decodes `tileRows` rows (a multiple of 16) to `tile`, multiplies, scales. The tile's rows are
 * `tileStride` bytes apart: not a multiple of 4096, or 16 rows would share one set of L1.
 */
export function trellisMatmul(
  codes: usize,
  rows: i32,
  columns: i32,
  plan: usize,
  patternLength: i32,
  codeBits: i32,
  interleave: i32,
  tailBiting: bool,
  scales: usize,
  x: usize,
  y: usize,
  tokens: i32,
  tile: usize,
  tileRows: i32,
  tileStride: usize,
  scratch: usize,
  first: i32,
  end: i32,
): void {
  const xStride = f32Bytes(columns);
  for (let row = first; row < end; row += tileRows) {
    const count = min(tileRows, end - row);
    trellisDecode(
      codes,
      rows,
      columns,
      plan,
      patternLength,
      codeBits,
      interleave,
      tailBiting,
      row,
      count,
      tile,
      tileStride,
      scratch,
    );
    multiplyTransposed(
      x,
      xStride,
      tile,
      tileStride,
      y + f32Bytes(row),
      f32Bytes(rows),
      tokens,
      columns,
      count,
      false,
    );
  }
  scaleColumns(y, scales, tokens, rows, first, end);
}

/** y [i, columns] = row ids[i] of a coded matrix with its scale, for i in first .. end - 1. */
export function trellisGather(
  codes: usize,
  rows: i32,
  columns: i32,
  plan: usize,
  patternLength: i32,
  codeBits: i32,
  interleave: i32,
  tailBiting: bool,
  scales: usize,
  ids: usize,
  y: usize,
  first: i32,
  end: i32,
): void {
  for (let i = first; i < end; i++) {
    const row = load<i32>(ids + f32Bytes(i));
    const before1 = predecessor(row, interleave, tailBiting, rows);
    const before2 = predecessor(before1, interleave, tailBiting, rows);
    const before3 = codeBits == 3 ? predecessor(before2, interleave, tailBiting, rows) : -2;
    const scale = load<f32>(scales + f32Bytes(row));
    let to = y + <usize>i * f32Bytes(columns);
    let position = 0;
    let group = 0;
    for (let column = 0; column < columns; group++) {
      const entry = plan + <usize>position * PLAN_ENTRY;
      const width = load<i32>(entry);
      const maps = <usize>load<u32>(entry, 8);
      if (++position == patternLength) position = 0;
      const stream = codes + <usize>(group >> 1) * <usize>rows;
      const shift = (group & 1) << 2;
      let u = image(maps, stream, row, shift) ^ image(maps + 16, stream, before1, shift);
      u ^= image(maps + 32, stream, before2, shift);
      if (before3 != -2) u ^= image(maps + 48, stream, before3, shift);
      const from = <usize>load<u32>(entry, 4) + f32Bytes(<i32>u * width);
      const used = f32Bytes(min(width, columns - column));
      for (let v: usize = 0; v < used; v += 4, to += 4) store<f32>(to, load<f32>(from + v) * scale);
      column += width;
    }
  }
}

/** The map's byte of the code at `row`; of code 0 before the first row. */
// @ts-ignore: decorator
@inline
function image(map: usize, stream: usize, row: i32, shift: i32): u8 {
  const code = row < 0 ? 0 : (<i32>load<u8>(stream + <usize>row) >> shift) & 15;
  return load<u8>(map + <usize>code);
}
