// The tables of a token (trellis-token.ts): products of its rotated input with the 16 vectors of A and of B of each
// column group, as numbers of 13 bits in two bytes.

import { f32Bytes } from "./vector";

/** Bytes of the tables of a pair of groups: low and high bytes of A, of B, then of the second group's. */
export const PAIR_BYTES: usize = 128;
/** Bytes of a plan's entry: width, addresses of its int16 tables by column and of S1 and S2. */
export const PLAN_ENTRY: usize = 12;
/** Numbers of the tables are from -LARGEST to LARGEST, stored with OFFSET added: below 2^13 and no carry to 32. */
const LARGEST: i32 = 4079;
export const OFFSET: i32 = 4096;

// OFFSET and 255 in every 16 bits; in memory because of V8 (see exp.ts).
const OFFSETS: usize = memory.data<u16>([
  4096, 4096, 4096, 4096, 4096, 4096, 4096, 4096, 255, 255, 255, 255, 255, 255, 255, 255,
]);

/** x as int16, the largest magnitude 32767, and zeros behind for a group that is cut; returns that magnitude. */
export function quantise(x: usize, count: i32, out: usize): f32 {
  // max, not pmax: NaN must come through.
  let most = f32x4.splat(0);
  let largest: f32 = 0;
  const fours = count & ~3;
  for (let i = 0; i < fours; i += 4) most = f32x4.max(most, f32x4.abs(v128.load(x + f32Bytes(i))));
  for (let lane = fours; lane < count; lane++) largest = max(largest, abs(load<f32>(x + f32Bytes(lane))));
  largest = max(
    largest,
    max(
      max(f32x4.extract_lane(most, 0), f32x4.extract_lane(most, 1)),
      max(f32x4.extract_lane(most, 2), f32x4.extract_lane(most, 3)),
    ),
  );
  const factor: f32 = largest > 0 ? <f32>32767 / largest : 0;
  const factors = f32x4.splat(factor);
  for (let i = 0; i < fours; i += 4) {
    const rounded = i32x4.trunc_sat_f32x4_s(
      f32x4.nearest(f32x4.mul(v128.load(x + f32Bytes(i)), factors)),
    );
    v128.store64_lane(out + (<usize>i << 1), i16x8.narrow_i32x4_s(rounded, rounded), 0);
  }
  for (let i = fours; i < count; i++)
    store<i16>(out + (<usize>i << 1), <i16>nearest<f32>(load<f32>(x + f32Bytes(i)) * factor));
  store<u64>(out + (<usize>count << 1), 0);
  return largest;
}

/** Products of fractions of 32768; never twice -32768, so the relaxed instruction gives the same. */
// @ts-ignore: decorator
@inline
function fraction(a: v128, b: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i16x8.relaxed_q15mulr_s(a, b);
  return i16x8.q15mulr_sat_s(a, b);
}

/** A group of int16 tables: A 0-7, A 8-15, B 0-7, B 8-15; returns the larger of `most` and their magnitudes. */
// @ts-ignore: decorator
@inline
function buildGroup(x: usize, width: i32, byColumn: usize, out: usize, most: v128): v128 {
  let s = v128.load16_splat(x);
  let a = fraction(v128.load(byColumn), s);
  let b = fraction(v128.load(byColumn, 16), s);
  let c = fraction(v128.load(byColumn, 32), s);
  let d = fraction(v128.load(byColumn, 48), s);
  for (let v = 1; v < width; v++) {
    x += 2;
    byColumn += 64;
    s = v128.load16_splat(x);
    a = i16x8.add(a, fraction(v128.load(byColumn), s));
    b = i16x8.add(b, fraction(v128.load(byColumn, 16), s));
    c = i16x8.add(c, fraction(v128.load(byColumn, 32), s));
    d = i16x8.add(d, fraction(v128.load(byColumn, 48), s));
  }
  v128.store(out, a);
  v128.store(out, b, 16);
  v128.store(out, c, 32);
  v128.store(out, d, 48);
  const ab = i16x8.max_s(i16x8.abs(a), i16x8.abs(b));
  const cd = i16x8.max_s(i16x8.abs(c), i16x8.abs(d));
  return i16x8.max_s(most, i16x8.max_s(ab, cd));
}

/**
 * The tables of all groups of `pairs` at `tables`, low and high bytes apart, from x as `quantise` gives it; `wide`: 128
 * bytes a pair. Returns what they were multiplied by.
 */
export function buildTables(
  x: usize,
  columns: i32,
  pairs: i32,
  plan: usize,
  patternLength: i32,
  wide: usize,
  tables: usize,
): f32 {
  const groups = 2 * pairs;
  let most = i16x8.splat(0);
  let position = 0;
  let at = x;
  // Reads past x only in a second group that does not exist: its numbers must be 0.
  const last = x + (<usize>columns << 1);
  for (let group = 0, out = wide; group < groups; group++, out += 64) {
    const entry = plan + <usize>position * PLAN_ENTRY;
    if (++position == patternLength) position = 0;
    const width = load<i32>(entry);
    const byColumn = <usize>load<u32>(entry, 4);
    const from = min(at, last);
    if (width == 2) most = buildGroup(from, 2, byColumn, out, most);
    else if (width == 1) most = buildGroup(from, 1, byColumn, out, most);
    else if (width == 3) most = buildGroup(from, 3, byColumn, out, most);
    else most = buildGroup(from, 4, byColumn, out, most);
    at += <usize>width << 1;
  }
  most = i16x8.max_s(most, v128.shuffle<i16>(most, most, 4, 5, 6, 7, 0, 1, 2, 3));
  most = i16x8.max_s(most, v128.shuffle<i16>(most, most, 2, 3, 0, 1, 6, 7, 4, 5));
  const largest = max(1, max(i16x8.extract_lane_s(most, 0), i16x8.extract_lane_s(most, 1)));
  const factor = min(32767, (LARGEST << 15) / largest);
  const factors = i16x8.splat(<i16>factor);
  const end = wide + (<usize>groups << 6);
  for (let from = wide, to = tables; from < end; from += 32, to += 32) {
    const offset = v128.load(OFFSETS);
    const low = v128.load(OFFSETS, 16);
    const a = i16x8.add(fraction(v128.load(from), factors), offset);
    const b = i16x8.add(fraction(v128.load(from, 16), factors), offset);
    v128.store(to, i8x16.narrow_i16x8_u(v128.and(a, low), v128.and(b, low)));
    v128.store(to, i8x16.narrow_i16x8_u(i16x8.shr_u(a, 8), i16x8.shr_u(b, 8)), 16);
  }
  return <f32>factor;
}
