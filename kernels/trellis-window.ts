// From codes in lanes (src/compute/trellis-lanes.ts) to the byte u of the window, for one row or 16 at a time.
// Not exported from the module.

// 15 in every byte; in memory because of V8 (see exp.ts).
export const FIFTEENS: usize = memory.data<u8>([15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15]);

/** Bytes of one entry of a plan: width, address of the 256 groups, of S1 and S2, of the tables by column. */
export const PLAN_ENTRY: usize = 16;
/** Bytes of a pair's codes before the first step; those of all pairs come first. */
export const PREFIX_BYTES: usize = 32;

/** Bytes of a pair's codes of a tile. */
// @ts-ignore: decorator
@inline
export function streamBytes(tileSteps: i32): usize {
  return (<usize>tileSteps) << 4;
}

/** Where the first pair has its codes of a step; steps -2 and -1 are those before the first. */
export function placeOf(codes: usize, pairs: i32, tileSteps: i32, step: i32): usize {
  if (step < 0) return codes + (<usize>(step + 2) << 4);
  const tile = step / tileSteps;
  const tiles = codes + <usize>pairs * PREFIX_BYTES + <usize>(tile * pairs) * streamBytes(tileSteps);
  return tiles + (<usize>(step - tile * tileSteps) << 4);
}

/** From a pair's codes of a step to the next pair's. */
// @ts-ignore: decorator
@inline
export function strideOf(tileSteps: i32, step: i32): usize {
  return step < 0 ? PREFIX_BYTES : streamBytes(tileSteps);
}

/** Byte look-up, every index below 16: then the relaxed instruction gives the same on every machine. */
// @ts-ignore: decorator
@inline
export function lookUp(table: v128, index: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return i8x16.relaxed_swizzle(table, index);
  return i8x16.swizzle(table, index);
}

/** The codes of the pair's first group (low nibbles) or second (high). */
// @ts-ignore: decorator
@inline
export function nibbles(bytes: v128, high: bool, mask: v128): v128 {
  return high ? v128.and(i16x8.shr_u(bytes, 4), mask) : v128.and(bytes, mask);
}

/** u of 16 rows with these codes, after rows with codes `before`, after rows with codes `twoBefore`. */
// @ts-ignore: decorator
@inline
export function windowBytes(
  codes: v128,
  before: v128,
  twoBefore: v128,
  maps: usize,
  high: bool,
  mask: v128,
): v128 {
  const n = nibbles(codes, high, mask);
  const state = v128.xor(
    lookUp(v128.load(maps), nibbles(before, high, mask)),
    lookUp(v128.load(maps, 16), nibbles(twoBefore, high, mask)),
  );
  return v128.xor(state, v128.or(n, i16x8.shl(n, 4)));
}
