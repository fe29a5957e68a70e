// From codes in lanes (src/compute/trellis-lanes.ts) to the byte u of the window, for one row or 16 at a time.
// Not exported from the module.

// 15 in every byte; in memory because of V8 (see exp.ts).
export const FIFTEENS: usize = memory.data<u8>([15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15]);

/** Bytes of one entry of a plan: width, address of the 256 groups, of S1 and S2, of the tables by column. */
export const PLAN_ENTRY: usize = 16;
/** Bytes before the first step of a stream. */
export const PREFIX_BYTES: usize = 32;

/** Bytes of a pair's codes of a tile, their prefix included. */
// @ts-ignore: decorator
@inline
export function streamBytes(tileSteps: i32): usize {
  return PREFIX_BYTES + ((<usize>tileSteps) << 4);
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

/** What S1 and S2 of the codes before add to u, for the 16 rows at `p`. */
// @ts-ignore: decorator
@inline
export function stateBytes(p: usize, s1: v128, s2: v128, high: bool, mask: v128): v128 {
  return v128.xor(
    lookUp(s1, nibbles(v128.load(p - 16), high, mask)),
    lookUp(s2, nibbles(v128.load(p - 32), high, mask)),
  );
}

/** u of the 16 rows at `p`. */
// @ts-ignore: decorator
@inline
export function windowBytes(p: usize, maps: usize, high: bool, mask: v128): v128 {
  const n = nibbles(v128.load(p), high, mask);
  const state = stateBytes(p, v128.load(maps), v128.load(maps, 16), high, mask);
  return v128.xor(state, v128.or(n, i16x8.shl(n, 4)));
}
