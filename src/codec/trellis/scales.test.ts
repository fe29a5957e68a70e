import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../random.js";
import { impossibleEnds, packScales, unpackScales } from "./scales.js";

const stored = (scales: readonly number[]) => unpackScales(packScales(Float32Array.from(scales)));

test("scales of a matrix come back within half a step, in a byte a row and four", () => {
  const random = new Random(1);
  const scales = Float32Array.from({ length: 1000 }, () => 0.05 * Math.exp(random.normal()));
  const bytes = packScales(scales);
  assert.equal(bytes.length, 1004);
  assert.equal(impossibleEnds(bytes), null);
  const back = unpackScales(bytes);
  const range = Math.log(Math.max(...scales) / Math.min(...scales));
  let worst = 0;
  for (const [r, scale] of scales.entries()) worst = Math.max(worst, Math.abs(Math.log(back[r] / scale)));
  // And the ends are halves.
  assert.ok(worst < range / 254 / 2 + 2 ** -11, `${worst} of ${range}`);
  assert.ok(worst > range / 254 / 4, "a thousand scales find the middle of a step");
  assert.deepEqual(packScales(back), bytes);
});

test("scales that are equal, zero, negative or not numbers", () => {
  assert.deepEqual(stored([0.5, 0.5]), Float32Array.of(0.5, 0.5));
  assert.deepEqual(stored([0, 0]), Float32Array.of(0, 0));
  assert.deepEqual(stored([]), Float32Array.of());
  assert.deepEqual(stored([0.25, 0, -3, 1, Number.NaN]), Float32Array.of(0.25, 0, 0, 1, 0));
  assert.deepEqual(stored([-1]), Float32Array.of(0));
});

test("a few tiny scales do not make the others coarse", () => {
  const back = stored([1e-7, 1, 1.01, 2]);
  assert.equal(back[0], 0);
  assert.ok(Math.abs(back[2] / back[1] - 1.01) < 2e-3, `${back[2] / back[1]}`);
  // Just below the range: nearer to its end than to 0.
  const [least] = stored([0.9 * 2 ** -14, 2 ** -14, 1]);
  assert.equal(least, 2 ** -14);
});

test("what half precision cannot hold is held by its ends", () => {
  assert.deepEqual(stored([1e6, 65504]), Float32Array.of(65504, 65504));
  assert.deepEqual(stored([1e-9, 1e-8]), Float32Array.of(0, 0));
  const [small] = stored([2 ** -24]);
  assert.equal(small, 2 ** -24);
});
