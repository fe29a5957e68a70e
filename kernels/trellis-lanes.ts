// Codes of a trellis-coded matrix from the stored order, rows after rows, to that of the kernels, 16 lanes abreast
// (src/compute/trellis-lanes.ts), while a model is loaded.

import { lookUp, PREFIX_BYTES, streamBytes } from "./trellis-window";

/**
 * Pairs of groups first .. end - 1 -> out: [pairs][2][16], what is before the first step, then tiles of `tileSteps` steps,
 * [tiles][pairs][tileSteps][16]. `stored` has codes of 4 bits as
 * [pairs][rows] bytes, of 3 bits as [groups] streams of `stride` bytes. `source` [vectors][16] i32: the row at each
 * place, its first vector the codes before those of `out`'s first; where there is none, the row after the last
 * multiple of 8. `carries` [pattern][16]: what a code adds to the nibble after it, by group, or 0. `scratch` has room
 * for the rows, 16 bytes more, and `vectors` vectors.
 */
export function trellisLanes(
  stored: usize,
  codeBits: i32,
  stride: i32,
  rows: i32,
  groups: i32,
  source: usize,
  vectors: i32,
  tileSteps: i32,
  carries: usize,
  pattern: i32,
  scratch: usize,
  out: usize,
  first: i32,
  end: i32,
): void {
  const length = (<usize>vectors) << 4;
  const pairs = codeBits == 4 ? groups : (groups + 1) >> 1;
  const padded = (<usize>rows + 7) & ~7;
  const raw = scratch + ((padded + 31) & ~15);
  for (let pair = first; pair < end; pair++) {
    if (codeBits == 4) memory.copy(scratch, stored + <usize>pair * <usize>rows, <usize>rows);
    else {
      const low = stored + <usize>(2 * pair) * <usize>stride;
      unpack(low, 2 * pair + 1 < groups ? low + <usize>stride : 0, scratch, stride);
    }
    store<u64>(scratch + padded, 0);
    for (let i: usize = 0; i < length; i++)
      store<u8>(raw + i, load<u8>(scratch + <usize>load<u32>(source + (i << 2))));
    if (carries) carry(raw, length, carries, pattern, pair);
    memory.copy(out + <usize>pair * PREFIX_BYTES, raw + 16, PREFIX_BYTES);
    const tileBytes = streamBytes(tileSteps);
    let to = out + <usize>pairs * PREFIX_BYTES + <usize>pair * tileBytes;
    for (let from = raw + 16 + PREFIX_BYTES; from < raw + length; from += tileBytes) {
      memory.copy(to, from, tileBytes);
      to += <usize>pairs * tileBytes;
    }
  }
}

/** Adds to every vector's codes but the first's what those of the vector before carry. */
function carry(raw: usize, length: usize, carries: usize, pattern: i32, pair: i32): void {
  const lowMap = v128.load(carries + (<usize>((2 * pair) % pattern) << 4));
  const highMap = i8x16.shl(v128.load(carries + (<usize>((2 * pair + 1) % pattern) << 4)), 4);
  const nibble = i8x16.splat(15);
  let before = v128.load(raw);
  for (let i: usize = 16; i < length; i += 16) {
    const codes = v128.load(raw + i);
    const low = lookUp(lowMap, v128.and(before, nibble));
    const high = lookUp(highMap, i8x16.shr_u(before, 4));
    v128.store(raw + i, v128.xor(codes, v128.xor(low, high)));
    before = codes;
  }
}

/** Streams of codes of 3 bits -> one byte a row, the first stream's in the low nibble; `high` 0 where there is none. */
function unpack(low: usize, high: usize, to: usize, stride: i32): void {
  const end = low + <usize>stride;
  for (; low < end; low += 3, to += 8) {
    let codes = spread(low);
    if (high) {
      codes |= spread(high) << 4;
      high += 3;
    }
    store<u64>(to, codes);
  }
}

/** 8 codes of 3 bits as 8 bytes. */
// @ts-ignore: decorator
@inline
function spread(at: usize): u64 {
  const bits = (<u64>load<u16>(at)) | ((<u64>load<u8>(at, 2)) << 16);
  const halves = (bits | (bits << 20)) & 0x00000fff00000fff;
  const quarters = (halves | (halves << 10)) & 0x003f003f003f003f;
  return (quarters | (quarters << 5)) & 0x0707070707070707;
}
