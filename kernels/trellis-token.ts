// One token through coded matrices that share their input: the input is made (norm or activation) and rotated,
// its products with the 16 vectors of A and of B become tables of 13-bit numbers for each column group, and 16
// rows add one of each with four shuffles. No multiplication for a weight, and a step costs the same for groups
// of 4 columns as of 1, so speed follows bits. Sums are whole numbers: the same for any number of threads.
//
// The five high bits of eight numbers are added in a byte, exactly; the eight low bits are averaged, which rounds. So
// only every second pair of groups is added to sums of 16 bits, which takes six instructions beside a pair's 25.
// Relative error of y 0.1 % for Gaussian x (docs/performance.md).

import { rmsNorm, siluMultiply } from "./elementwise";
import { rotate } from "./rotate";
import { ACC_BYTES, addAnyPairs, addSplitPairs, KEPT_BYTES, Product, TILE } from "./token-pairs";
import { buildTables, OFFSET, PAIR_BYTES, quantise } from "./token-tables";
import { isRun, putEach, putRuns } from "./trellis-rows";
import { f32Bytes } from "./vector";

/** Pairs that are added up in bytes first. */
const PAIRS_IN_BYTES: i32 = 2;
/** Pairs whose bytes add up in 16 bits. */
const PAIRS_AT_ONCE: i32 = 256 * PAIRS_IN_BYTES;

// How the input is made from x (src/compute/wasm/token-products.ts).
const NORMALISE: i32 = 1;
const ACTIVATE: i32 = 2;

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
  let position = 0;
  for (let pair = 0; pair < pairs; pair += PAIRS_AT_ONCE) {
    const count = min(PAIRS_AT_ONCE, pairs - pair);
    if (count & 1) keepMissing(size, acc + ACC_BYTES * TILE);
    if (product.split) addSplitPairs(product, first, pair, size, count, tables, acc);
    else position = addAnyPairs(product, first, pair, size, count, tables, position, acc);
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
      if (isRun(rows)) putRuns(v0, v1, v2, v3, rows, scales, base, y);
      else {
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

/** The rows of four lanes that have one; `spare`: 16 bytes. */
// @ts-ignore: decorator
@inline
function putLanes(values: v128, spare: usize, rowAt: usize, scales: usize, base: usize, y: usize): void {
  v128.store(spare, values);
  putEach(spare, rowAt, scales, base, y, 4);
}
