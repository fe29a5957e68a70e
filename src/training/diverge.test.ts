import assert from "node:assert/strict";
import { test } from "node:test";
import { InputError } from "../errors.js";
import { DivergenceGuard } from "./diverge.js";

/** The step at which the guard throws and its message, or null. */
function run(guard: DivergenceGuard, losses: Iterable<number>): { step: number; message: string } | null {
  let step = 0;
  for (const loss of losses) {
    try {
      guard.check(step, loss, 1);
    } catch (error) {
      assert.ok(error instanceof InputError);
      assert.ok(!error.message.includes("\n"));
      return { step, message: error.message };
    }
    step++;
  }
  return null;
}
const repeat = (count: number, loss: (step: number) => number) =>
  Array.from({ length: count }, (_, i) => loss(i));

test("a loss or gradient that is not finite ends the run and names a lower rate", () => {
  for (const [loss, norm, what] of [
    [Number.NaN, 1, "loss is NaN"],
    [1, Number.POSITIVE_INFINITY, "gradient's norm is Infinity"],
  ] as const) {
    const guard = new DivergenceGuard({ learningRate: 0.003 });
    guard.check(6, 2, 1);
    const message = new RegExp(`${what} at step 7: the learning rate 0.003 is too high: try 0.0003$`);
    assert.throws(() => guard.check(7, loss, norm), message);
    assert.throws(() => guard.check(0, loss, norm), /weights are damaged/);
  }
});

test("a loss that rises and stays ends the run, after its patience", () => {
  const losses = [...repeat(100, (i) => 4 - 0.03 * i), ...repeat(400, () => 9)];
  const lost = run(new DivergenceGuard({ learningRate: 0.01 }), losses);
  assert.match(lost?.message ?? "", /loss has risen from 1\.\d+ to 9\.00 by step \d+ .*try 0\.001$/);
  // The mean of 20 is above the limit some steps after 100; then 50 more.
  assert.ok(lost && lost.step > 150 && lost.step < 170, `${lost?.step}`);
});

test("noise, a spike, a plateau and a loss near zero do not", () => {
  const fine = [
    repeat(500, (i) => 3 + Math.sin(7 * i)),
    repeat(500, (i) => (i >= 100 && i < 130 ? 30 : 2)),
    repeat(500, (i) => (i < 100 ? 2 : 5.9)),
    repeat(500, (i) => (i < 100 ? 0.001 : 0.4)),
    repeat(19, (i) => 10 ** i),
  ];
  for (const losses of fine) assert.equal(run(new DivergenceGuard({ learningRate: 0.01 }), losses), null);
});

test("the losses again lead to the same step", () => {
  const losses = [...repeat(60, () => 1), ...repeat(200, () => 8)];
  const whole = run(new DivergenceGuard({ learningRate: 0.01 }), losses);
  const resumed = new DivergenceGuard({ learningRate: 0.01 });
  for (const [step, loss] of losses.slice(0, 100).entries()) resumed.check(step, loss, 0);
  const rest = run(resumed, losses.slice(100));
  assert.equal(rest && rest.step + 100, whole?.step);

  test("one held-out loss far above the first ends the run", () => {
    const guard = new DivergenceGuard({ learningRate: 0.1 });
    guard.checkHeldOut(-1, 1);
    guard.checkHeldOut(9, 0.5);
    guard.checkHeldOut(19, 3.4);
    assert.throws(() => guard.checkHeldOut(29, 3.6), /risen from 1.00 to 3.60 by step 29.*try 0.01/);
  });
});
