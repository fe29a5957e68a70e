import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../random.js";
import { allocate } from "./allocate.js";

const options = [
  { bytes: 10, distortion: 0.28 },
  { bytes: 15, distortion: 0.14 },
  { bytes: 20, distortion: 0.075 },
  { bytes: 30, distortion: 0.021 },
  { bytes: 40, distortion: 0.007 },
];

test("a budget below the smallest sizes cannot be met", () => {
  assert.equal(allocate([{ weight: 1, options }], 9), null);
});

test("important items get more bits", () => {
  const choice = allocate(
    [
      { weight: 1, options },
      { weight: 8, options },
    ],
    45,
  )!;
  assert.ok(choice[1] > choice[0], `${choice}`);
});

test("close to the exhaustive optimum, never over the budget", () => {
  const random = new Random(1);
  for (let round = 0; round < 200; round++) {
    const items = Array.from({ length: 4 }, () => ({ weight: 0.1 + random.uniform() * 10, options }));
    const budget = 40 + random.below(100);
    const choice = allocate(items, budget)!;
    const cost = (c: readonly number[]) =>
      c.reduce((s, o, i) => s + items[i].weight * options[o].distortion, 0);
    const size = (c: readonly number[]) => c.reduce((s, o) => s + options[o].bytes, 0);
    assert.ok(size(choice) <= budget);
    let best = Number.POSITIVE_INFINITY;
    for (let code = 0; code < 5 ** 4; code++) {
      const c = [0, 1, 2, 3].map((i) => Math.floor(code / 5 ** i) % 5);
      if (size(c) <= budget) best = Math.min(best, cost(c));
    }
    // One item's largest step may be lost to rounding; four items only, so the loss can be large-ish.
    assert.ok(cost(choice) <= best * 1.6 + 1e-9, `${cost(choice)} against ${best}`);
  }
});
