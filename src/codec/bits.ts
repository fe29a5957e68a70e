/**
 * Packing of small unsigned integers (codes, codebook indices) into bytes: value i occupies bits
 * [i * bits, (i + 1) * bits) of a little-endian bit stream, so 8 three-bit codes fill 3 bytes and two
 * four-bit codes a byte (the first in the low nibble).
 */

/** Bytes that `count` values of `bits` bits take. */
export function packedBytes(count: number, bits: number): number {
  return Math.ceil((count * bits) / 8);
}

/** Packs values below 2^bits, 1 <= bits <= 16. The unused high bits of the last byte are 0. */
export function packBits(values: ArrayLike<number>, bits: number): Uint8Array {
  const out = new Uint8Array(packedBytes(values.length, bits));
  let held = 0;
  let heldBits = 0;
  let at = 0;
  for (let i = 0; i < values.length; i++) {
    held |= values[i] << heldBits;
    heldBits += bits;
    while (heldBits >= 8) {
      out[at++] = held;
      held >>>= 8;
      heldBits -= 8;
    }
  }
  if (heldBits > 0) out[at] = held;
  return out;
}

/** The first `count` values of a packed stream; throws RangeError if `bytes` is too short to hold them. */
export function unpackBits(bytes: Uint8Array, bits: number, count: number): Uint16Array {
  if (bytes.length < packedBytes(count, bits)) throw new RangeError("unpackBits: too few bytes");
  const out = new Uint16Array(count);
  const mask = 2 ** bits - 1;
  let held = 0;
  let heldBits = 0;
  let at = 0;
  for (let i = 0; i < count; i++) {
    while (heldBits < bits) {
      held |= bytes[at++] << heldBits;
      heldBits += 8;
    }
    out[i] = held & mask;
    held >>>= bits;
    heldBits -= bits;
  }
  return out;
}
