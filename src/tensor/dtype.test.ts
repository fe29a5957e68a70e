import assert from "node:assert/strict";
import { test } from "node:test";
import {
  bf16ToNumber,
  bytesToF32,
  f16ToNumber,
  f32ToBytes,
  numberToBf16,
  numberToF16,
  roundAllToF16,
  roundToF16,
} from "./dtype.js";

test("every half survives the way to a number and back", () => {
  for (let bits = 0; bits < 65536; bits++) {
    const value = f16ToNumber(bits);
    if (Number.isNaN(value)) assert.ok((numberToF16(value) & 0x7fff) > 0x7c00);
    else assert.equal(numberToF16(value), bits);
  }
});

test("halves round to nearest, ties to even", () => {
  for (let bits = 0; bits < 0x7bff; bits++) {
    const low = f16ToNumber(bits);
    const high = f16ToNumber(bits + 1);
    const middle = (low + high) / 2;
    assert.equal(numberToF16(middle), bits & 1 ? bits + 1 : bits);
    assert.equal(numberToF16(low + 0.51 * (high - low)), bits + 1);
    assert.equal(numberToF16(-(low + 0.49 * (high - low))), bits | 0x8000);
  }
  assert.equal(numberToF16(65519), 0x7bff);
  assert.equal(numberToF16(65520), 0x7c00);
  assert.equal(numberToF16(1e-9), 0);
});

test("rounding an array is rounding each value", () => {
  const values: number[] = [0, -0, 65504, 65519, 65520, -1e30, 6.1e-5, 6.2e-5, 5e-8, -3e-8, 1e-9, Math.PI];
  for (let i = 0; i < 10000; i++) values.push(Math.sin(i) * 2 ** ((i % 40) - 26));
  const array = Float32Array.from(values);
  const expected = Array.from(array, roundToF16);
  roundAllToF16(array);
  assert.deepEqual(Array.from(array), expected);
});

test("bfloat16 rounds to nearest, ties to even, and keeps not-a-number", () => {
  assert.equal(bf16ToNumber(numberToBf16(1)), 1);
  assert.equal(numberToBf16(1 + 2 ** -8), 0x3f80);
  assert.equal(numberToBf16(1 + 3 * 2 ** -8), 0x3f82);
  assert.ok(Number.isNaN(bf16ToNumber(numberToBf16(Number.NaN))));
});

test("bytes of each float type, also from an odd offset", () => {
  const values = Float32Array.of(0, 1, -2.5, 1024, 2 ** -14);
  for (const dtype of ["F32", "F16", "BF16"] as const) {
    const bytes = f32ToBytes(values, dtype);
    const shifted = new Uint8Array(bytes.length + 1);
    shifted.set(bytes, 1);
    assert.deepEqual(bytesToF32(shifted.subarray(1), dtype), values);
  }
});
