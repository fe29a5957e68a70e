// Coded weights times few tokens, without decoding them: for each column group, the products of x with the
// 16 vectors of A and of B are tables of 16 numbers, and a row adds one of each. Byte shuffles look 16 rows
// up at once: a table of f32 is kept as four tables of one byte, and the four results are interleaved. One
// token costs as much for groups of 4 columns as of 1, so speed follows bits.
//
// Exact tables (f32): results differ from decoding and multiplying only by the order of additions.

import { scatter } from "./trellis-rows";
import { FIFTEENS, PLAN_ENTRY, placeOf, strideOf, windowBytes } from "./trellis-window";
import { f32Bytes, multiplyAdd, zero } from "./vector";

/** Bytes of the tables of a group: A and B, four planes of 16 bytes each. */
const GROUP_BYTES: usize = 128;
/** Rows whose sums stay in L1 while all groups pass. */
const TILE: i32 = 2048;

/** `tables` (A [16][width], B [16][width]) by column: out [width][32], A's 16 numbers then B's. */
export function trellisColumns(tables: usize, width: i32, out: usize): void {
  for (let v = 0; v < width; v++) {
    for (let entry = 0; entry < 32; entry++)
      store<f32>(out + f32Bytes(v * 32 + entry), load<f32>(tables + f32Bytes(entry * width + v)));
  }
}

/**
 * y [tokens, rows] = x [tokens, columns] wᵀ for the rows at positions first .. end - 1 (multiples of 16). The
 * first arguments are trellisMatmul's. `tables`: 128 bytes a group, `sums`: 2048 f32, all this thread's own.
 */
export function trellisLookup(
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
  tables: usize,
  sums: usize,
  first: i32,
  end: i32,
): void {
  const tileRows = tileSteps << 4;
  for (let t = 0; t < tokens; t++) {
    buildTables(x + <usize>t * f32Bytes(columns), columns, plan, patternLength, tables);
    const to = y + <usize>t * f32Bytes(rows);
    let count = 0;
    for (let p = first; p < end; p += count) {
      count = min(min(TILE, end - p), tileRows - (p % tileRows));
      const step = p >> 4;
      const place = placeOf(codes, pairs, tileSteps, step);
      const placeBefore = placeOf(codes, pairs, tileSteps, step - 1);
      const placeTwoBefore = placeOf(codes, pairs, tileSteps, step - 2);
      zero(sums, count);
      let position = 0;
      let column = 0;
      let table = tables;
      for (let group = 0; column < columns; group++, table += GROUP_BYTES) {
        const entry = plan + <usize>position * PLAN_ENTRY;
        column += load<i32>(entry);
        if (++position == patternLength) position = 0;
        const maps = <usize>load<u32>(entry, 8);
        const pair = <usize>(group >> 1);
        const from = place + pair * strideOf(tileSteps, step);
        const before = v128.load(placeBefore + pair * strideOf(tileSteps, step - 1));
        const twoBefore = v128.load(placeTwoBefore + pair * strideOf(tileSteps, step - 2));
        if (group & 1) addRows(from, before, twoBefore, count, maps, table, true, sums);
        else addRows(from, before, twoBefore, count, maps, table, false, sums);
      }
      scatter(sums, rowAt + f32Bytes(p), scales, to, count);
    }
  }
}

// @ts-ignore: decorator
@inline
function addRows(
  from: usize,
  before: v128,
  twoBefore: v128,
  count: i32,
  maps: usize,
  table: usize,
  high: bool,
  sums: usize,
): void {
  const mask = v128.load(FIFTEENS);
  for (; count > 0; count -= 16, from += 16, sums += 64) {
    const codes = v128.load(from);
    addBlock(windowBytes(codes, before, twoBefore, maps, high, mask), table, mask, sums);
    twoBefore = before;
    before = codes;
  }
}

/** sums [16] += A[u & 15] + B[u >> 4] for 16 rows. */
// @ts-ignore: decorator
@inline
function addBlock(u: v128, table: usize, mask: v128, sums: usize): void {
  const a = v128.and(u, mask);
  const b = v128.and(i16x8.shr_u(u, 4), mask);
  const a0 = i8x16.swizzle(v128.load(table), a);
  const a1 = i8x16.swizzle(v128.load(table, 16), a);
  const a2 = i8x16.swizzle(v128.load(table, 32), a);
  const a3 = i8x16.swizzle(v128.load(table, 48), a);
  const aLow01 = interleaveLow8(a0, a1);
  const aHigh01 = interleaveHigh8(a0, a1);
  const aLow23 = interleaveLow8(a2, a3);
  const aHigh23 = interleaveHigh8(a2, a3);
  const b0 = i8x16.swizzle(v128.load(table, 64), b);
  const b1 = i8x16.swizzle(v128.load(table, 80), b);
  const b2 = i8x16.swizzle(v128.load(table, 96), b);
  const b3 = i8x16.swizzle(v128.load(table, 112), b);
  const bLow01 = interleaveLow8(b0, b1);
  const bHigh01 = interleaveHigh8(b0, b1);
  const bLow23 = interleaveLow8(b2, b3);
  const bHigh23 = interleaveHigh8(b2, b3);
  let both = f32x4.add(interleaveLow16(aLow01, aLow23), interleaveLow16(bLow01, bLow23));
  v128.store(sums, f32x4.add(v128.load(sums), both));
  both = f32x4.add(interleaveHigh16(aLow01, aLow23), interleaveHigh16(bLow01, bLow23));
  v128.store(sums, f32x4.add(v128.load(sums, 16), both), 16);
  both = f32x4.add(interleaveLow16(aHigh01, aHigh23), interleaveLow16(bHigh01, bHigh23));
  v128.store(sums, f32x4.add(v128.load(sums, 32), both), 32);
  both = f32x4.add(interleaveHigh16(aHigh01, aHigh23), interleaveHigh16(bHigh01, bHigh23));
  v128.store(sums, f32x4.add(v128.load(sums, 48), both), 48);
}

// @ts-ignore: decorator
@inline
function interleaveLow8(a: v128, b: v128): v128 {
  return v128.shuffle<i8>(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

// @ts-ignore: decorator
@inline
function interleaveHigh8(a: v128, b: v128): v128 {
  return v128.shuffle<i8>(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

// @ts-ignore: decorator
@inline
function interleaveLow16(a: v128, b: v128): v128 {
  return v128.shuffle<i16>(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
}

// @ts-ignore: decorator
@inline
function interleaveHigh16(a: v128, b: v128): v128 {
  return v128.shuffle<i16>(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
}

/** For each group, 16 products of x with A's vectors and 16 with B's, as byte planes. */
function buildTables(x: usize, columns: i32, plan: usize, patternLength: i32, out: usize): void {
  let position = 0;
  for (let column = 0; column < columns; out += GROUP_BYTES) {
    const entry = plan + <usize>position * PLAN_ENTRY;
    const width = load<i32>(entry);
    const byColumn = <usize>load<u32>(entry, 12);
    if (++position == patternLength) position = 0;
    const used = min(width, columns - column);
    buildTable(x + f32Bytes(column), used, byColumn, out);
    buildTable(x + f32Bytes(column), used, byColumn + 64, out + 64);
    column += width;
  }
}

function buildTable(x: usize, count: i32, byColumn: usize, out: usize): void {
  let a = f32x4.splat(0);
  let b = a;
  let c = a;
  let d = a;
  for (; count > 0; count--, x += 4, byColumn += 128) {
    const s = v128.load32_splat(x);
    a = multiplyAdd(v128.load(byColumn), s, a);
    b = multiplyAdd(v128.load(byColumn, 16), s, b);
    c = multiplyAdd(v128.load(byColumn, 32), s, c);
    d = multiplyAdd(v128.load(byColumn, 48), s, d);
  }
  // Bytes 0 and 1 of eight numbers, then bytes 2 and 3; then each byte of all sixteen.
  const lowAB = v128.shuffle<i8>(a, b, 0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
  const lowCD = v128.shuffle<i8>(c, d, 0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29);
  const highAB = v128.shuffle<i8>(a, b, 2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
  const highCD = v128.shuffle<i8>(c, d, 2, 6, 10, 14, 18, 22, 26, 30, 3, 7, 11, 15, 19, 23, 27, 31);
  v128.store(out, v128.shuffle<i64>(lowAB, lowCD, 0, 2));
  v128.store(out, v128.shuffle<i64>(lowAB, lowCD, 1, 3), 16);
  v128.store(out, v128.shuffle<i64>(highAB, highCD, 0, 2), 32);
  v128.store(out, v128.shuffle<i64>(highAB, highCD, 1, 3), 48);
}
