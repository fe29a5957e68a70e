// From stored codes to the byte u of the window (docs/format.md, "Trellis"), for one row or 16 at a time.
// Not exported from the module.

/** Bytes of one entry of a plan: width, address of the 256 groups, of the maps, of the tables by column. */
export const PLAN_ENTRY: usize = 16;

/** The predecessor of row r, S rows before: cyclic when tail-biting, else -1 (code 0) before the first row. */
// @ts-ignore: decorator
@inline
export function predecessor(r: i32, interleave: i32, tailBiting: bool, rows: i32): i32 {
  if (r < 0) return -1;
  if (r >= interleave) return r - interleave;
  return tailBiting ? (r - (interleave % rows) + rows) % rows : -1;
}

/** Rows from here on have all their predecessors at smaller addresses, so that blocks of them can be loaded. */
// @ts-ignore: decorator
@inline
export function firstPlainRow(codeBits: i32, interleave: i32): i32 {
  return (12 / codeBits - 1) * interleave;
}

/**
 * Bytes of the rows `steps` predecessors before rows r .. r + 15. They are adjacent unless the start of the
 * sequences lies among them, which with S a multiple of 16 never happens; then they are gathered one by one
 * (hundreds of cycles) in `scratch`, 16 bytes.
 */
export function predecessorBlock(
  stream: usize,
  r: i32,
  steps: i32,
  interleave: i32,
  tailBiting: bool,
  rows: i32,
  scratch: usize,
): v128 {
  const before = r - steps * interleave;
  if (before >= 0) return v128.load(stream + <usize>before);
  if (before <= -16) {
    if (!tailBiting) return i64x2.splat(0);
    if (before + rows >= 0) return v128.load(stream + <usize>(before + rows));
  }
  for (let i = 0; i < 16; i++) {
    let row = min(r + i, rows - 1);
    for (let k = 0; k < steps; k++) row = predecessor(row, interleave, tailBiting, rows);
    store<u8>(scratch + <usize>i, row < 0 ? 0 : load<u8>(stream + <usize>row));
  }
  return v128.load(scratch);
}

/** The codes of the pair's first group (low nibbles) or second (high). */
// @ts-ignore: decorator
@inline
export function nibbles(bytes: v128, high: bool, mask: v128): v128 {
  return high ? v128.and(i16x8.shr_u(bytes, 4), mask) : v128.and(bytes, mask);
}

/**
 * u of 16 rows from the bytes of a pair at those rows (c0) and at their first, second and, for codes of 3
 * bits, third predecessors.
 */
// @ts-ignore: decorator
@inline
export function windowBytes(
  maps: usize,
  c0: v128,
  c1: v128,
  c2: v128,
  c3: v128,
  high: bool,
  three: bool,
  mask: v128,
): v128 {
  const u = v128.xor(
    v128.xor(
      i8x16.swizzle(v128.load(maps), nibbles(c0, high, mask)),
      i8x16.swizzle(v128.load(maps, 16), nibbles(c1, high, mask)),
    ),
    i8x16.swizzle(v128.load(maps, 32), nibbles(c2, high, mask)),
  );
  return three ? v128.xor(u, i8x16.swizzle(v128.load(maps, 48), nibbles(c3, high, mask))) : u;
}
