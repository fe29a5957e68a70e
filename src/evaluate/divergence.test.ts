import assert from "node:assert/strict";
import { test } from "node:test";
import { logSumExp } from "../exp.js";
import { compareRows, summarise, summariseChange } from "./divergence.js";

function near(actual: number, expected: number, tolerance = 1e-12): void {
  assert.ok(Math.abs(actual - expected) <= tolerance, `${actual} is not ${expected}`);
}

test("KL of two small distributions, worked out by hand", () => {
  // p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2): KL = 1/2 ln 2 + 0 + 1/4 ln 1/2 = 1/4 ln 2. Powers of two times
  // a common factor make the logits' log-sums ln 4 + offset; offsets must not matter.
  const p = Float32Array.from([2, 1, 1], (v) => Math.fround(Math.log(v)) + 3);
  const q = Float32Array.from([1, 1, 2], (v) => Math.fround(Math.log(v)) - 5);
  const { divergence, sameTop, referenceLogSum, modelLogSum } = compareRows(p, q);
  near(divergence, Math.LN2 / 4, 1e-6);
  assert.equal(sameTop, false);
  near(referenceLogSum, Math.log(4) + 3, 1e-6);
  near(modelLogSum, Math.log(4) - 5, 1e-6);
});

test("a row against itself diverges by exactly nothing, shifted by a constant as well", () => {
  const row = Float32Array.from([0.5, -2, 8, 1.25, 8.5]);
  assert.equal(compareRows(row, row).divergence, 0);
  const shifted = compareRows(
    row,
    row.map((v) => v + 64),
  );
  near(shifted.divergence, 0, 1e-14);
  assert.equal(shifted.sameTop, true);
});

test("extreme logits stay finite", () => {
  const reference = Float32Array.from([3e4, -3e4, 0]);
  const model = Float32Array.from([-3e4, 3e4, 0]);
  const { divergence, referenceLogSum } = compareRows(reference, model);
  // All the reference's mass is on a token that the model gives exp(-60000).
  near(divergence, 6e4, 1e-6);
  near(referenceLogSum, 3e4, 1e-6);
  near(logSumExp(reference), 3e4, 1e-6);
});

test("the summary: mean and its standard error, percentiles with interpolation", () => {
  const { stderr, ...summary } = summarise(Float64Array.from({ length: 201 }, (_, i) => 200 - i));
  assert.deepEqual(summary, { mean: 100, median: 100, p90: 180, p99: 198, max: 200 });
  // The sample variance of 0 ... n - 1 is n (n + 1) / 12.
  near(stderr!, Math.sqrt((201 * 202) / 12 / 201), 1e-9);
  const even = summarise(Float64Array.of(4, 1, 2, 3));
  assert.deepEqual([even.mean, even.median], [2.5, 2.5]);
  near(even.p99, 3.97);
  const one = summarise(Float64Array.of(7));
  assert.deepEqual(one, { mean: 7, stderr: null, median: 7, p90: 7, p99: 7, max: 7 });
});

test("changes of a probability: gains and losses cancel in the mean, not in the root mean square", () => {
  const changes = { count: 2, sum: 0.25 - 0.25, squares: 2 * 0.25 ** 2 };
  assert.deepEqual(summariseChange(changes), { mean: 0, stderr: 0.25, rms: 0.25 });
});
