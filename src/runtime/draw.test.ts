import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../random.js";
import { drawFromAll } from "./draw.js";

test("a share of the weight falls on the id that holds it, over all of a vocabulary", () => {
  const random = new Random(3);
  for (const [count, temperature] of [
    [49_152, 1],
    [1_000, 0.3],
    [257, 2.5],
  ]) {
    const logits = Float32Array.from({ length: count }, () => 4 * random.normal());
    const best = logits.reduce((a, b) => Math.max(a, b));
    const below = new Float64Array(count + 1);
    for (let id = 0; id < count; id++)
      below[id + 1] = below[id] + Math.exp((logits[id] - best) / temperature);
    for (let i = 0; i <= 500; i++) {
      const share = i / 501;
      const id = drawFromAll(logits, best, temperature, share);
      const target = share * below[count];
      // Weights are good to 8e-6 each.
      const slack = 1e-5 * below[count];
      assert.ok(below[id] <= target + slack && below[id + 1] >= target - slack, `share ${share}: ${id}`);
    }
  }
});

test("what is forbidden has no weight, nor anything at a temperature of almost 0 but the largest", () => {
  const logits = new Float32Array(600).fill(Number.NEGATIVE_INFINITY);
  logits[300] = 1;
  logits[310] = 2;
  for (const share of [0, 0.5, 0.999999999]) {
    assert.ok([300, 310].includes(drawFromAll(logits, 2, 1, share)));
    assert.equal(drawFromAll(logits, 2, Number.MIN_VALUE, share), 310);
  }
});
