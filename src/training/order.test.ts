import assert from "node:assert/strict";
import { test } from "node:test";
import { ExampleOrder } from "./order.js";

const take = (order: ExampleOrder, from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => order.at(from + i));

test("every epoch has every example once, in another order; other seeds have other orders", () => {
  const order = new ExampleOrder(50, 7);
  const epochs = Array.from({ length: 20 }, (_, i) => take(order, 50 * i, 50 * (i + 1)));
  const all = Array.from({ length: 50 }, (_, i) => i);
  for (const epoch of epochs)
    assert.deepEqual(
      epoch.toSorted((a, b) => a - b),
      all,
    );
  assert.equal(new Set(epochs.map((epoch) => epoch.join())).size, 20);
  const first = new Set(
    Array.from({ length: 20 }, (_, seed) => take(new ExampleOrder(50, seed), 0, 50).join()),
  );
  assert.equal(first.size, 20);
});

test("an example follows from seed and draw alone", () => {
  const whole = take(new ExampleOrder(9, 3), 0, 40);
  for (let from = 0; from < 40; from++)
    assert.deepEqual(take(new ExampleOrder(9, 3), from, 40), whole.slice(from));
  const backwards = new ExampleOrder(9, 3);
  for (let draw = 39; draw >= 0; draw--) assert.equal(backwards.at(draw), whole[draw]);
  // Orders must stay what they are: interrupted runs of older versions go on with them.
  assert.deepEqual(take(new ExampleOrder(5, 0), 0, 10), [3, 2, 0, 4, 1, 4, 2, 1, 0, 3]);
});

test("each place is taken by each example about equally often", () => {
  const counts = new Float64Array(8);
  const order = new ExampleOrder(8, 1);
  for (let epoch = 0; epoch < 4000; epoch++) counts[order.at(8 * epoch)]++;
  // Chi-squared with 7 degrees of freedom: above 24.3 once in a thousand.
  const chi = counts.reduce((sum, n) => sum + (n - 500) ** 2 / 500, 0);
  assert.ok(chi < 24.3, `${chi}: ${counts.join(" ")}`);
});

test("impossible draws and counts are defects", () => {
  assert.throws(() => new ExampleOrder(0, 0), RangeError);
  for (const draw of [-1, 0.5, Number.NaN]) assert.throws(() => new ExampleOrder(3, 0).at(draw), RangeError);
});
