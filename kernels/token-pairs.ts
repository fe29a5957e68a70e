// 16 rows times a pair of column groups at a time: codes to places in the tables of a token, their numbers added.
// The loop of trellis-token.ts.

import { PAIR_BYTES, PLAN_ENTRY } from "./token-tables";
import { FIFTEENS, lookUp, nibbles, placeOf, strideOf } from "./trellis-window";

/** Steps (16 rows each) whose sums stay in L1 while all groups pass. */
export const TILE: i32 = 64;
/** Bytes of sums of a step while pairs are added: low, odd low, high, odd high. */
export const ACC_BYTES: usize = 64;
/** Bytes of a step that pass from one pair to the next: low, high. */
export const KEPT_BYTES: usize = 32;

/** One matrix and where its product goes; written by src/compute/wasm/token-products.ts. */
// @ts-ignore: decorator
@unmanaged
export class Product {
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
  /** Whether all groups have one width, whose S1 has high nibbles only and S2 low ones. */
  split: i32 = 0;
}

/** Where the product's `pair` has its codes of a step. */
function placeOfPair(product: Product, pair: i32, step: i32): usize {
  const tileSteps = product.tileSteps;
  const ofFirst = placeOf(product.codes, product.pairs, tileSteps, step);
  return ofFirst + <usize>pair * strideOf(tileSteps, step);
}

/** Adds `count` pairs from `pair` on, of `size` steps from `first`, to acc, where the product's maps are split. */
export function addSplitPairs(
  product: Product,
  first: i32,
  pair: i32,
  size: i32,
  count: i32,
  tables: usize,
  acc: usize,
): void {
  addPairs(product, first, pair, size, count, tables, 0, acc, true);
}

/** The same with any maps and widths, the pair's groups at `position` of the pattern; the position after the last. */
export function addAnyPairs(
  product: Product,
  first: i32,
  pair: i32,
  size: i32,
  count: i32,
  tables: usize,
  position: i32,
  acc: usize,
): i32 {
  return addPairs(product, first, pair, size, count, tables, position, acc, false);
}

/** Either, by `split` (a constant): then all groups share the maps of the pattern's first. */
// @ts-ignore: decorator
@inline
function addPairs(
  product: Product,
  first: i32,
  pair: i32,
  size: i32,
  count: i32,
  tables: usize,
  position: i32,
  acc: usize,
  split: bool,
): i32 {
  const place = placeOfPair(product, pair, first);
  const before = placeOfPair(product, pair, first - 1);
  const twoBefore = placeOfPair(product, pair, first - 2);
  const tileSteps = product.tileSteps;
  const step = strideOf(tileSteps, first);
  const stepBefore = strideOf(tileSteps, first - 1);
  const stepTwoBefore = strideOf(tileSteps, first - 2);
  // By twos: with first and second as the arms of a condition, Binaryen makes them one loop with the condition in it.
  // Of an odd number the first of all is the second of two.
  for (let i = -(count & 1); i < count; i += 2) {
    if (i >= 0) {
      const p = place + <usize>i * step;
      const b = before + <usize>i * stepBefore;
      const c = twoBefore + <usize>i * stepTwoBefore;
      addPair(product, p, b, c, size, tables + <usize>i * PAIR_BYTES, position + 2 * i, acc, split, false);
    }
    const j = <usize>(i + 1);
    const p = place + j * step;
    const b = before + j * stepBefore;
    const c = twoBefore + j * stepTwoBefore;
    addPair(product, p, b, c, size, tables + j * PAIR_BYTES, position + 2 * <i32>j, acc, split, true);
  }
  return position + 2 * count;
}

/** Where the maps are of the group at `position`, counted on beyond the end of the pattern of widths. */
function mapsAt(product: Product, position: i32): usize {
  return <usize>load<u32>(product.plan + <usize>(position % product.patternLength) * PLAN_ENTRY, 8);
}

/**
 * The look-ups of a pair, first or `second` (a constant) of two. The first hands on what it has in memory, which is
 * free beside its vector instructions for 32 codes, where registers are not. The second adds both to acc: for low and
 * high bytes the sums of raw 16-bit words (two rows each), and the sums of their high bytes, the odd rows. `split` (a
 * constant): the code before chooses in B alone and the one before it in A alone.
 */
// @ts-ignore: decorator
@inline
function addPair(
  product: Product,
  p: usize,
  placeBefore: usize,
  placeTwoBefore: usize,
  size: i32,
  tables: usize,
  position: i32,
  acc: usize,
  split: bool,
  second: bool,
): void {
  const mask = v128.load(FIFTEENS);
  const maps = mapsAt(product, position);
  let s1 = v128.load(maps);
  const s2 = v128.load(maps, 16);
  const others = split ? maps : mapsAt(product, position + 1);
  let t1 = v128.load(others);
  const t2 = v128.load(others, 16);
  if (split) {
    s1 = i8x16.shr_u(s1, 4);
    t1 = s1;
  }
  let kept = acc + ACC_BYTES * TILE;
  // Tables are left in memory: there are 15 registers.
  const before = v128.load(placeBefore);
  const twoBefore = v128.load(placeTwoBefore);
  // Of each group the code before, and what S2 has for the one before that.
  let last = nibbles(before, false, mask);
  let old = lookUp(s2, nibbles(twoBefore, false, mask));
  let last1 = nibbles(before, true, mask);
  let old1 = lookUp(t2, nibbles(twoBefore, true, mask));
  const end = p + (<usize>size << 4);
  do {
    const codes = v128.load(p);
    const n = nibbles(codes, false, mask);
    let state = lookUp(s1, last);
    if (!split) state = v128.xor(state, old);
    const atA = v128.xor(split ? old : nibbles(state, false, mask), n);
    const atB = v128.xor(split ? state : nibbles(state, true, mask), n);
    old = lookUp(s2, last);
    last = n;
    const n1 = nibbles(codes, true, mask);
    let state1 = lookUp(t1, last1);
    if (!split) state1 = v128.xor(state1, old1);
    const atC = v128.xor(split ? old1 : nibbles(state1, false, mask), n1);
    const atD = v128.xor(split ? state1 : nibbles(state1, true, mask), n1);
    old1 = lookUp(t2, last1);
    last1 = n1;
    let low = i8x16.avgr_u(lookUp(v128.load(tables), atA), lookUp(v128.load(tables, 32), atB));
    low = i8x16.avgr_u(low, i8x16.avgr_u(lookUp(v128.load(tables, 64), atC), lookUp(v128.load(tables, 96), atD)));
    if (second) {
      low = i8x16.avgr_u(low, v128.load(kept));
      v128.store(acc, i16x8.add(v128.load(acc), low));
      v128.store(acc, i16x8.add(v128.load(acc, 16), i16x8.shr_u(low, 8)), 16);
    } else v128.store(kept, low);
    let high = i8x16.add(lookUp(v128.load(tables, 16), atA), lookUp(v128.load(tables, 48), atB));
    high = i8x16.add(high, i8x16.add(lookUp(v128.load(tables, 80), atC), lookUp(v128.load(tables, 112), atD)));
    if (second) {
      high = i8x16.add(high, v128.load(kept, 16));
      v128.store(acc, i16x8.add(v128.load(acc, 32), high), 32);
      v128.store(acc, i16x8.add(v128.load(acc, 48), i16x8.shr_u(high, 8)), 48);
      acc += ACC_BYTES;
    } else v128.store(kept, high, 16);
    kept += KEPT_BYTES;
    p += 16;
  } while (p != end);
}
