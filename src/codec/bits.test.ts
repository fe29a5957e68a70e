import assert from "node:assert/strict";
import { test } from "node:test";
import { packBits, packedBytes, unpackBits } from "./bits.js";

test("three-bit codes: eight in three little-endian bytes", () => {
  // 1 | 2 << 3 | 3 << 6 | 4 << 9 | 5 << 12 | 6 << 15 | 7 << 18 | 0 << 21
  assert.deepEqual([...packBits([1, 2, 3, 4, 5, 6, 7, 0], 3)], [0xd1, 0x58, 0x1f]);
  assert.deepEqual([...packBits([5, 10, 3], 4)], [0xa5, 0x03]);
});

test("unpacking restores values of every width", () => {
  for (let bits = 1; bits <= 16; bits++) {
    const values = Array.from({ length: 37 }, (_, i) => Math.imul(i + 1, 2654435761) >>> (32 - bits));
    const packed = packBits(values, bits);
    assert.equal(packed.length, packedBytes(37, bits));
    assert.deepEqual([...unpackBits(packed, bits, 37)], values);
  }
});

test("a stream that is too short is refused", () => {
  assert.throws(() => unpackBits(new Uint8Array(2), 3, 6), RangeError);
});
