import assert from "node:assert/strict";
import { test } from "node:test";
import { expNonPositive } from "./exp.js";

test("agrees with Math.exp to 3e-12 over the whole range", () => {
  let worst = 0;
  for (let x = 0; x > -708; x -= 0.000977)
    worst = Math.max(worst, Math.abs(expNonPositive(x) / Math.exp(x) - 1));
  assert.ok(worst < 3e-12, `relative error ${worst}`);
});

test("the ends of the range", () => {
  assert.equal(expNonPositive(0), 1);
  assert.equal(expNonPositive(-0), 1);
  assert.equal(expNonPositive(-800), 0);
  assert.equal(expNonPositive(Number.NEGATIVE_INFINITY), 0);
  assert.ok(expNonPositive(-708.39) > 0);
  assert.ok(Math.abs(expNonPositive(-Number.MIN_VALUE) - 1) < 3e-12);
  assert.ok(Number.isNaN(expNonPositive(Number.NaN)));
});
