// One token through coded matrices that share their input: the input is made (norm or activation) and rotated,
// its products with the 16 vectors of A and of B become tables of 13-bit numbers for each column group, and 16
// rows add one of each with four shuffles. No multiplication for a weight, and a step costs the same for groups
// of 4 columns as of 1, so speed follows bits. Sums are whole numbers: the same for any number of threads.
//
// The five high bits of eight numbers are added in a byte, exactly; the eight low bits are averaged, which rounds. So
// only every second pair of groups is added to sums of 16 bits, which takes six instructions beside a pair's 33.
// Relative error of y 0.1 % for Gaussian x (docs/performance.md).

import { rmsNorm, siluMultiply } from "./elementwise";
import { rotate } from "./rotate";
import { buildTables, OFFSET, PAIR_BYTES, PLAN_ENTRY, quantise } from "./token-tables";
import { FIFTEENS, lookUp, nibbles, placeOf, strideOf } from "./trellis-window";
import { f32Bytes } from "./vector";

/** Steps (16 rows each) whose sums stay in L1 while all groups pass. */
const TILE: i32 = 64;
/** Pairs that are added up in bytes first. */
const PAIRS_IN_BYTES: i32 = 2;
/** Pairs whose bytes add up in 16 bits. */
const PAIRS_AT_ONCE: i32 = 256 * PAIRS_IN_BYTES;
/** Bytes of sums of a step while pairs are added: low, odd low, high, odd high. */
const ACC_BYTES: usize = 64;
/** Bytes of a step that pass from one pair to the next: low, high. */
const KEPT_BYTES: usize = 32;

// How the input is made from x (src/compute/wasm/token-products.ts).
const NORMALISE: i32 = 1;
const ACTIVATE: i32 = 2;

/** One matrix and where its product goes; written by src/compute/wasm/token-products.ts. */
// @ts-ignore: decorator
@unmanaged
class Product {
  codes: usize = 0;
  steps: i32 = 0;
  tileSteps: i32 = 0;
  columns: i32 = 0;
  pairs: i32 = 0;
  rowAt: usize = 0;
  scales: usize = 0;
  y: usize = 0;
  /** [rows], added to the product: a bias, y itself, or 0 for none. */
  base: usize = 0;
  /** Entries of 12 bytes: width, addresses of its int16 tables by column and of S1 and S2. */
  plan: usize = 0;
  patternLength: i32 = 0;
  /** What a unit of a table of int16 is worth where the largest input is 1. */
  unit: f32 = 0;
  /** Whether the tables are those of the product before. */
  sameTables: i32 = 0;
}

/**
 * All `count` products for this thread's share of the rows. kind 0: the input is x; 1: its RMSNorm with weights
 * `other`; 2: silu(x) * other. `scratch`, this thread's own: 14 bytes a column and 128, 256 bytes for each of
 * `pairs` (the most of any product), 10 KiB.
 */
export function tokenProducts(
  kind: i32,
  x: usize,
  other: usize,
  epsilon: f32,
  columns: i32,
  signs: usize,
  q: usize,
  m: i32,
  products: usize,
  count: i32,
  pairs: i32,
  scratch: usize,
  thread: i32,
  threads: i32,
): void {
  const sums = scratch;
  const acc = sums + 64 * TILE;
  const tables = acc + (ACC_BYTES + KEPT_BYTES) * TILE;
  const wide = tables + <usize>pairs * PAIR_BYTES;
  const made = wide + <usize>pairs * 128;
  const rotated = made + f32Bytes(columns);
  const spare = rotated + f32Bytes(columns);
  const quantised = spare + f32Bytes(columns);
  let input = x;
  if (kind == NORMALISE) {
    rmsNorm(x, other, made, columns, epsilon, 0, 1);
    input = made;
  } else if (kind == ACTIVATE) {
    memory.copy(made, x, f32Bytes(columns));
    siluMultiply(made, other, 0, columns);
    input = made;
  }
  rotate(input, rotated, signs, q, m, columns, false, spare, 0, 1);
  const largest = quantise(rotated, columns, quantised);
  let unit: f32 = 0;
  for (let i = 0; i < count; i++) {
    const product = changetype<Product>(products + <usize>i * offsetof<Product>());
    if (product.sameTables == 0) {
      const length = product.patternLength;
      const factor = buildTables(quantised, columns, product.pairs, product.plan, length, wide, tables);
      unit = (product.unit / factor) * largest;
    }
    const steps = product.steps;
    const first = (steps * thread) / threads;
    const end = (steps * (thread + 1)) / threads;
    const tileSteps = product.tileSteps;
    let size = 0;
    for (let step = first; step < end; step += size) {
      size = min(min(TILE, end - step), tileSteps - (step % tileSteps));
      multiply(product, step, size, tables, acc, sums);
      finish(product, step, size, sums, unit);
    }
  }
}

/** sums [16 size] of the tables' numbers over all groups, for `size` steps from `first`, of one tile. */
function multiply(product: Product, first: i32, size: i32, tables: usize, acc: usize, sums: usize): void {
  const zero = i32x4.splat(0);
  for (let p = sums; p < sums + (<usize>size << 6); p += 16) v128.store(p, zero);
  for (let p = acc; p < acc + (<usize>size << 6); p += 16) v128.store(p, zero);
  const pairs = product.pairs;
  const patternLength = product.patternLength;
  let position = 0;
  for (let pair = 0; pair < pairs; pair += PAIRS_AT_ONCE) {
    const count = min(PAIRS_AT_ONCE, pairs - pair);
    if (count & 1) keepMissing(size, acc + ACC_BYTES * TILE);
    if (patternLength == 1) addUniform(product, first, pair, size, count, tables, acc);
    else position = addMixed(product, first, pair, size, count, tables, position, acc);
    tables += <usize>count * PAIR_BYTES;
    widen(acc, size, sums);
  }
}

/** Of an odd number of pairs the first is the second of two: the other's numbers are all 0, stored as OFFSET. */
function keepMissing(size: i32, kept: usize): void {
  const low = i8x16.splat(<i8>(OFFSET & 255));
  const high = i8x16.splat(<i8>(4 * (OFFSET >> 8)));
  for (; size > 0; size--, kept += KEPT_BYTES) {
    v128.store(kept, low);
    v128.store(kept, high, 16);
  }
}

/** Where the product's `pair` has its codes of a step. */
function placeOfPair(product: Product, pair: i32, step: i32): usize {
  const tileSteps = product.tileSteps;
  const ofFirst = placeOf(product.codes, product.pairs, tileSteps, step);
  return ofFirst + <usize>pair * strideOf(tileSteps, step);
}

function addUniform(
  product: Product,
  first: i32,
  pair: i32,
  size: i32,
  count: i32,
  tables: usize,
  acc: usize,
): void {
  const tileSteps = product.tileSteps;
  let place = placeOfPair(product, pair, first);
  let before = placeOfPair(product, pair, first - 1);
  let twoBefore = placeOfPair(product, pair, first - 2);
  const plan = product.plan;
  const maps = <usize>load<u32>(plan, 8);
  const s1 = v128.load(maps);
  const s2 = v128.load(maps, 16);
  const mask = v128.load(FIFTEENS);
  for (; count > 0; count--) {
    if (count & 1) addPair(place, before, twoBefore, size, tables, s1, s2, s1, s2, mask, acc, true);
    else addPair(place, before, twoBefore, size, tables, s1, s2, s1, s2, mask, acc, false);
    place += strideOf(tileSteps, first);
    before += strideOf(tileSteps, first - 1);
    twoBefore += strideOf(tileSteps, first - 2);
    tables += PAIR_BYTES;
  }
}

function addMixed(
  product: Product,
  first: i32,
  pair: i32,
  size: i32,
  count: i32,
  tables: usize,
  position: i32,
  acc: usize,
): i32 {
  const tileSteps = product.tileSteps;
  let place = placeOfPair(product, pair, first);
  let before = placeOfPair(product, pair, first - 1);
  let twoBefore = placeOfPair(product, pair, first - 2);
  const plan = product.plan;
  const patternLength = product.patternLength;
  const mask = v128.load(FIFTEENS);
  for (; count > 0; count--) {
    const maps = <usize>load<u32>(plan + <usize>position * PLAN_ENTRY, 8);
    if (++position == patternLength) position = 0;
    const others = <usize>load<u32>(plan + <usize>position * PLAN_ENTRY, 8);
    if (++position == patternLength) position = 0;
    const s1 = v128.load(maps);
    const s2 = v128.load(maps, 16);
    const t1 = v128.load(others);
    const t2 = v128.load(others, 16);
    if (count & 1) addPair(place, before, twoBefore, size, tables, s1, s2, t1, t2, mask, acc, true);
    else addPair(place, before, twoBefore, size, tables, s1, s2, t1, t2, mask, acc, false);
    place += strideOf(tileSteps, first);
    before += strideOf(tileSteps, first - 1);
    twoBefore += strideOf(tileSteps, first - 2);
    tables += PAIR_BYTES;
  }
  return position;
}

/**
 * The look-ups of a pair, first or `second` (a constant) of two. The first hands on what it has in memory, which is
 * free beside 33 vector instructions for 32 codes, where registers are not. The second adds both to acc: for low and
 * high bytes the sums of raw 16-bit words (two rows each), and the sums of their high bytes, the odd rows.
 */
// @ts-ignore: decorator
@inline
function addPair(
  p: usize,
  placeBefore: usize,
  placeTwoBefore: usize,
  size: i32,
  tables: usize,
  s1: v128,
  s2: v128,
  t1: v128,
  t2: v128,
  mask: v128,
  acc: usize,
  second: bool,
): void {
  let kept = acc + ACC_BYTES * TILE;
  // Tables are left in memory: there are 15 registers, and loads are not what limits this loop.
  const before = v128.load(placeBefore);
  const twoBefore = v128.load(placeTwoBefore);
  let n = nibbles(before, false, mask);
  let state = v128.xor(lookUp(s1, n), lookUp(s2, nibbles(twoBefore, false, mask)));
  let next = lookUp(s2, n);
  n = nibbles(before, true, mask);
  let state1 = v128.xor(lookUp(t1, n), lookUp(t2, nibbles(twoBefore, true, mask)));
  let next1 = lookUp(t2, n);
  const end = p + (<usize>size << 4);
  do {
    const codes = v128.load(p);
    const n = nibbles(codes, false, mask);
    const atA = v128.xor(nibbles(state, false, mask), n);
    const atB = v128.xor(nibbles(state, true, mask), n);
    state = v128.xor(lookUp(s1, n), next);
    next = lookUp(s2, n);
    let low = i8x16.avgr_u(lookUp(v128.load(tables), atA), lookUp(v128.load(tables, 32), atB));
    let high = i8x16.add(lookUp(v128.load(tables, 16), atA), lookUp(v128.load(tables, 48), atB));
    const n1 = nibbles(codes, true, mask);
    const atC = v128.xor(nibbles(state1, false, mask), n1);
    const atD = v128.xor(nibbles(state1, true, mask), n1);
    state1 = v128.xor(lookUp(t1, n1), next1);
    next1 = lookUp(t2, n1);
    low = i8x16.avgr_u(low, i8x16.avgr_u(lookUp(v128.load(tables, 64), atC), lookUp(v128.load(tables, 96), atD)));
    high = i8x16.add(
      high,
      i8x16.add(lookUp(v128.load(tables, 80), atC), lookUp(v128.load(tables, 112), atD)),
    );
    if (second) {
      low = i8x16.avgr_u(low, v128.load(kept));
      high = i8x16.add(high, v128.load(kept, 16));
      v128.store(acc, i16x8.add(v128.load(acc), low));
      v128.store(acc, i16x8.add(v128.load(acc, 16), i16x8.shr_u(low, 8)), 16);
      v128.store(acc, i16x8.add(v128.load(acc, 32), high), 32);
      v128.store(acc, i16x8.add(v128.load(acc, 48), i16x8.shr_u(high, 8)), 48);
      acc += ACC_BYTES;
    } else {
      v128.store(kept, low);
      v128.store(kept, high, 16);
    }
    kept += KEPT_BYTES;
    p += 16;
  } while (p != end);
}

/** Adds acc, as 8 low + 256 high, to sums and clears it. */
function widen(acc: usize, size: i32, sums: usize): void {
  const zero = i16x8.splat(0);
  for (; size > 0; size--, acc += ACC_BYTES, sums += 64) {
    const oddLow = v128.load(acc, 16);
    const evenLow = i16x8.sub(v128.load(acc), i16x8.shl(oddLow, 8));
    const oddHigh = v128.load(acc, 48);
    const evenHigh = i16x8.sub(v128.load(acc, 32), i16x8.shl(oddHigh, 8));
    for (let p: usize = 0; p < 64; p += 16) v128.store(acc + p, zero);
    const low0 = v128.shuffle<i16>(evenLow, oddLow, 0, 8, 1, 9, 2, 10, 3, 11);
    const low1 = v128.shuffle<i16>(evenLow, oddLow, 4, 12, 5, 13, 6, 14, 7, 15);
    const high0 = v128.shuffle<i16>(evenHigh, oddHigh, 0, 8, 1, 9, 2, 10, 3, 11);
    const high1 = v128.shuffle<i16>(evenHigh, oddHigh, 4, 12, 5, 13, 6, 14, 7, 15);
    addWide(i32x4.extend_low_i16x8_u(low0), i32x4.extend_low_i16x8_u(high0), sums);
    addWide(i32x4.extend_high_i16x8_u(low0), i32x4.extend_high_i16x8_u(high0), sums + 16);
    addWide(i32x4.extend_low_i16x8_u(low1), i32x4.extend_low_i16x8_u(high1), sums + 32);
    addWide(i32x4.extend_high_i16x8_u(low1), i32x4.extend_high_i16x8_u(high1), sums + 48);
  }
}

// @ts-ignore: decorator
@inline
function addWide(low: v128, high: v128, sums: usize): void {
  v128.store(sums, i32x4.add(v128.load(sums), i32x4.add(i32x4.shl(low, 3), i32x4.shl(high, 8))));
}

/** y[row] = base[row] + (sum - the tables' offsets) unit scales[row]. */
function finish(product: Product, first: i32, size: i32, sums: usize, unit: f32): void {
  // Sums wrap around at 2^16 groups; what is left without the offsets does not, below 2^17.
  // Averages round up by 1/2 half of the time: by 1/4 in each of three turns, which is 6 in the sum of two pairs.
  const pairs = product.pairs;
  const all = (pairs + PAIRS_IN_BYTES - 1) & -PAIRS_IN_BYTES;
  const offsets = i32x4.splat(4 * OFFSET * all + 3 * pairs);
  const units = f32x4.splat(unit);
  let rowAt = product.rowAt + (<usize>first << 6);
  const scales = product.scales;
  const y = product.y;
  const base = product.base;
  for (; size >= 4; size -= 4, sums += 256, rowAt += 256) {
    for (let lanes: usize = 0; lanes < 64; lanes += 16) {
      const to = sums + lanes;
      const rows = rowAt + lanes;
      const v0 = valuesAt(to, offsets, units);
      const v1 = valuesAt(to + 64, offsets, units);
      const v2 = valuesAt(to + 128, offsets, units);
      const v3 = valuesAt(to + 192, offsets, units);
      if (isRun(rows)) {
        const a = v128.shuffle<i32>(v0, v1, 0, 4, 1, 5);
        const b = v128.shuffle<i32>(v0, v1, 2, 6, 3, 7);
        const c = v128.shuffle<i32>(v2, v3, 0, 4, 1, 5);
        const d = v128.shuffle<i32>(v2, v3, 2, 6, 3, 7);
        putRun(v128.shuffle<i64>(a, c, 0, 2), load<i32>(rows), scales, base, y);
        putRun(v128.shuffle<i64>(a, c, 1, 3), load<i32>(rows, 4), scales, base, y);
        putRun(v128.shuffle<i64>(b, d, 0, 2), load<i32>(rows, 8), scales, base, y);
        putRun(v128.shuffle<i64>(b, d, 1, 3), load<i32>(rows, 12), scales, base, y);
      } else {
        putLanes(v0, to, rows, scales, base, y);
        putLanes(v1, to, rows + 64, scales, base, y);
        putLanes(v2, to, rows + 128, scales, base, y);
        putLanes(v3, to, rows + 192, scales, base, y);
      }
    }
  }
  for (const end = sums + (<usize>size << 6); sums < end; sums += 16, rowAt += 16)
    putLanes(valuesAt(sums, offsets, units), sums, rowAt, scales, base, y);
}

// @ts-ignore: decorator
@inline
function valuesAt(sums: usize, offsets: v128, units: v128): v128 {
  return f32x4.mul(f32x4.convert_i32x4_s(i32x4.sub(v128.load(sums), offsets)), units);
}

/** Whether four lanes each have rows that follow one another, for four steps. */
// @ts-ignore: decorator
@inline
function isRun(rowAt: usize): bool {
  const rows = v128.load(rowAt);
  const second = i32x4.eq(i32x4.sub(v128.load(rowAt + 64), rows), i32x4.splat(1));
  // A lane without rows has -1 throughout, and one that ends has it from then on.
  return i32x4.all_true(
    v128.and(second, i32x4.eq(i32x4.sub(v128.load(rowAt + 192), rows), i32x4.splat(3))),
  );
}

/** Four rows from `row` on. */
// @ts-ignore: decorator
@inline
function putRun(values: v128, row: i32, scales: usize, base: usize, y: usize): void {
  const at = f32Bytes(row);
  const scaled = f32x4.mul(values, v128.load(scales + at));
  v128.store(y + at, base ? f32x4.add(v128.load(base + at), scaled) : scaled);
}

/** The rows of four lanes that have one; `spare`: 16 bytes. */
// @ts-ignore: decorator
@inline
function putLanes(values: v128, spare: usize, rowAt: usize, scales: usize, base: usize, y: usize): void {
  v128.store(spare, values);
  for (let i: usize = 0; i < 16; i += 4) {
    const row = load<i32>(rowAt + i);
    if (row >= 0) put(load<f32>(spare + i), row, scales, base, y);
  }
}

// @ts-ignore: decorator
@inline
function put(value: f32, row: i32, scales: usize, base: usize, y: usize): void {
  const at = f32Bytes(row);
  const scaled = value * load<f32>(scales + at);
  store<f32>(y + at, base ? load<f32>(base + at) + scaled : scaled);
}
