/**
 * Block formats against an encoder that packs known scales and quants bit by bit, as ggml lays them out, and
 * computes what each weight must be from those. (Once, on random blocks, the decoder was also compared with the
 * quants module of the Python package `gguf`: equal for all formats.)
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { f32ToBytes, numberToF16, roundToF16 } from "../tensor/dtype.js";
import { BLOCK_FORMATS, decodeBlocks } from "./gguf-blocks.js";

const random = (() => {
  let state = 12345;
  return (n: number) => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % n;
  };
})();
const randoms = (count: number, n: number) => Array.from({ length: count }, () => random(n));
const scale = () => roundToF16((random(2000) - 1000) / 4096);
const f16 = (value: number) => {
  const bits = numberToF16(value);
  return [bits & 255, bits >> 8];
};

interface Packed {
  bytes: number[];
  weights: number[];
}

/** Nibbles: byte i holds weight i (low) and weight i + 16 (high). */
const nibbles = (q: number[]) => Array.from({ length: 16 }, (_, i) => (q[i] & 15) | ((q[i + 16] & 15) << 4));
/** Bit i of 32 is the fifth bit of weight i. */
const fifthBits = (q: number[]) =>
  [0, 8, 16, 24].map((from) => q.slice(from, from + 8).reduce((byte, v, i) => byte | ((v >> 4) << i), 0));

const encoders: Record<string, () => Packed> = {
  Q8_0() {
    const d = scale();
    const q = randoms(32, 256).map((v) => v - 128);
    return { bytes: [...f16(d), ...q.map((v) => v & 255)], weights: q.map((v) => d * v) };
  },
  Q4_0() {
    const d = scale();
    const q = randoms(32, 16);
    return { bytes: [...f16(d), ...nibbles(q)], weights: q.map((v) => d * (v - 8)) };
  },
  Q4_1() {
    const [d, m] = [scale(), scale()];
    const q = randoms(32, 16);
    return { bytes: [...f16(d), ...f16(m), ...nibbles(q)], weights: q.map((v) => d * v + m) };
  },
  Q5_0() {
    const d = scale();
    const q = randoms(32, 32);
    return { bytes: [...f16(d), ...fifthBits(q), ...nibbles(q)], weights: q.map((v) => d * (v - 16)) };
  },
  Q5_1() {
    const [d, m] = [scale(), scale()];
    const q = randoms(32, 32);
    return {
      bytes: [...f16(d), ...f16(m), ...fifthBits(q), ...nibbles(q)],
      weights: q.map((v) => d * v + m),
    };
  },
  Q4_K() {
    const [d, dmin] = [scale(), scale()];
    const [scales, minima] = [randoms(8, 64), randoms(8, 64)];
    const q = randoms(256, 16);
    const packed = Array<number>(12).fill(0);
    for (let i = 0; i < 4; i++) {
      packed[i] = scales[i] | ((scales[i + 4] >> 4) << 6);
      packed[i + 4] = minima[i] | ((minima[i + 4] >> 4) << 6);
      packed[i + 8] = (scales[i + 4] & 15) | ((minima[i + 4] & 15) << 4);
    }
    const quants: number[] = [];
    for (let pair = 0; pair < 4; pair++)
      for (let i = 0; i < 32; i++) quants.push(q[64 * pair + i] | (q[64 * pair + 32 + i] << 4));
    return {
      bytes: [...f16(d), ...f16(dmin), ...packed, ...quants],
      weights: q.map((v, i) => d * scales[i >> 5] * v - dmin * minima[i >> 5]),
    };
  },
  Q6_K() {
    const d = scale();
    const scales = randoms(16, 256).map((v) => v - 128);
    const q = randoms(256, 64);
    const low = Array<number>(128).fill(0);
    const high = Array<number>(64).fill(0);
    q.forEach((v, i) => {
      const [half, quarter, at] = [i >> 7, (i >> 5) & 3, i & 31];
      low[64 * half + 32 * (quarter % 2) + at] |= (v & 15) << (quarter < 2 ? 0 : 4);
      high[32 * half + at] |= (v >> 4) << (2 * quarter);
    });
    return {
      bytes: [...low, ...high, ...scales.map((v) => v & 255), ...f16(d)],
      weights: q.map((v, i) => d * scales[i >> 4] * (v - 32)),
    };
  },
};

for (const [name, encode] of Object.entries(encoders))
  test(`${name} decodes to what its scales and quants say`, () => {
    const blocks = Array.from({ length: 50 }, encode);
    const format = BLOCK_FORMATS.get(name)!;
    assert.equal(blocks[0].bytes.length, format.bytes);
    assert.equal(blocks[0].weights.length, format.weights);
    // One byte in front: blocks of a file lie at odd addresses too.
    const bytes = Uint8Array.from([0, ...blocks.flatMap((block) => block.bytes)]).subarray(1);
    const expected = Float32Array.from(blocks.flatMap((block) => block.weights));
    const actual = new Float32Array(expected.length);
    decodeBlocks(bytes, name, actual);
    // Adding 0 makes -0 and 0 one.
    assert.deepEqual(
      actual.map((v) => v + 0),
      expected.map((v) => v + 0),
    );
  });

test("plain floats", () => {
  const values = Float32Array.of(1, -0.5, 3.140625, 65504);
  for (const type of ["F32", "F16"] as const) {
    const out = new Float32Array(4);
    decodeBlocks(f32ToBytes(values, type), type, out);
    assert.deepEqual(out, values);
  }
  const out = new Float32Array(2);
  decodeBlocks(Uint8Array.of(0x80, 0x3f, 0x49, 0x40), "BF16", out);
  assert.deepEqual(out, Float32Array.of(1, 3.140625));
});
