import assert from "node:assert/strict";
import { test } from "node:test";
import { UsageError } from "../errors.js";
import { EarlyStop } from "./early-stop.js";

/** Which of the losses were the best so far (+), and where it stops (!). */
function trace(stop: EarlyStop, losses: readonly number[]): string {
  return losses.map((loss, step) => (stop.add({ step, loss }) ? "+" : "-") + (stop.stop ? "!" : "")).join("");
}

test("stops after as many measurements in a row without improvement as it has patience", () => {
  const stop = new EarlyStop({ patience: 2 });
  assert.equal(trace(stop, [3, 2, 2, 1.5, 1.6, 1.5]), "++-+--!");
  assert.deepEqual(stop.best, { step: 3, loss: 1.5 });
});

test("gains below the minimum count as none until they add up, but are the best", () => {
  const stop = new EarlyStop({ patience: 3, minimumImprovement: 0.1 });
  assert.equal(trace(stop, [1, 0.96, 0.92, 0.88, 0.87, 0.86, 0.85]), "++++" + "+++!");
  assert.deepEqual(stop.best, { step: 6, loss: 0.85 });
});

test("measurements before it begins to count are not waited for, but can be the best", () => {
  const stop = new EarlyStop({ patience: 2, from: 4 });
  assert.equal(trace(stop, [3, 2, 4, 4, 4, 4]), "++---" + "-!");
  assert.deepEqual(stop.best, { step: 1, loss: 2 });
});

test("a loss that is not finite is never the best", () => {
  const stop = new EarlyStop({ patience: 2 });
  assert.equal(trace(stop, [Number.NaN, 1, Number.NEGATIVE_INFINITY]).slice(0, 3), "-+-");
  assert.deepEqual(stop.best, { step: 1, loss: 1 });
});

test("the same measurements again lead to the same place", () => {
  const losses = [3, 2, 2.5, 1.9, 1.95, 1.92, 1.91];
  for (let cut = 0; cut < losses.length; cut++) {
    const whole = new EarlyStop();
    const resumed = new EarlyStop();
    const expected = trace(whole, losses);
    assert.equal(trace(resumed, losses.slice(0, cut)), expected.replaceAll("!", "").slice(0, cut));
    for (const [i, loss] of losses.slice(cut).entries()) resumed.add({ step: cut + i, loss });
    assert.deepEqual([resumed.best, resumed.stop], [whole.best, whole.stop]);
  }
});

test("options out of range", () => {
  for (const patience of [0, 1.5, Number.NaN]) assert.throws(() => new EarlyStop({ patience }), UsageError);
  for (const minimumImprovement of [-1, Number.NaN])
    assert.throws(() => new EarlyStop({ minimumImprovement }), UsageError);
});
