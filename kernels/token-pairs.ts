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
  const tileSteps = product.tileSteps;
  let place = placeOfPair(product, pair, first);
  let before = placeOfPair(product, pair, first - 1);
  let twoBefore = placeOfPair(product, pair, first - 2);
  const plan = product.plan;
  const patternLength = product.patternLength;
  const mask = v128.load(FIFTEENS);
  const maps = <usize>load<u32>(plan, 8);
  let s1 = i8x16.shr_u(v128.load(maps), 4);
  let s2 = v128.load(maps, 16);
  let t1 = s1;
  let t2 = s2;
  for (; count > 0; count--) {
    if (!split) {
      const maps = <usize>load<u32>(plan + <usize>position * PLAN_ENTRY, 8);
      if (++position == patternLength) position = 0;
      const others = <usize>load<u32>(plan + <usize>position * PLAN_ENTRY, 8);
      if (++position == patternLength) position = 0;
      s1 = v128.load(maps);
      s2 = v128.load(maps, 16);
      t1 = v128.load(others);
      t2 = v128.load(others, 16);
    }
    if (count & 1) addPair(place, before, twoBefore, size, tables, s1, s2, t1, t2, mask, acc, split, true);
    else addPair(place, before, twoBefore, size, tables, s1, s2, t1, t2, mask, acc, split, false);
    place += strideOf(tileSteps, first);
    before += strideOf(tileSteps, first - 1);
    twoBefore += strideOf(tileSteps, first - 2);
    tables += PAIR_BYTES;
  }
  return position;
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
  split: bool,
  second: bool,
): void {
  let kept = acc + ACC_BYTES * TILE;
  // Tables are left in memory: there are 15 registers.
  const before = v128.load(placeBefore);
  const twoBefore = v128.load(placeTwoBefore);
  let n = nibbles(before, false, mask);
  let old = lookUp(s2, nibbles(twoBefore, false, mask));
  let state = lookUp(s1, n);
  if (!split) state = v128.xor(state, old);
  let next = lookUp(s2, n);
  n = nibbles(before, true, mask);
  let old1 = lookUp(t2, nibbles(twoBefore, true, mask));
  let state1 = lookUp(t1, n);
  if (!split) state1 = v128.xor(state1, old1);
  let next1 = lookUp(t2, n);
  const end = p + (<usize>size << 4);
  do {
    const codes = v128.load(p);
    const n = nibbles(codes, false, mask);
    const atA = v128.xor(split ? old : nibbles(state, false, mask), n);
    const atB = v128.xor(split ? state : nibbles(state, true, mask), n);
    state = lookUp(s1, n);
    if (split) old = next;
    else state = v128.xor(state, next);
    next = lookUp(s2, n);
    let low = i8x16.avgr_u(lookUp(v128.load(tables), atA), lookUp(v128.load(tables, 32), atB));
    let high = i8x16.add(lookUp(v128.load(tables, 16), atA), lookUp(v128.load(tables, 48), atB));
    const n1 = nibbles(codes, true, mask);
    const atC = v128.xor(split ? old1 : nibbles(state1, false, mask), n1);
    const atD = v128.xor(split ? state1 : nibbles(state1, true, mask), n1);
    state1 = lookUp(t1, n1);
    if (split) old1 = next1;
    else state1 = v128.xor(state1, next1);
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
