import assert from "node:assert/strict";
import { test } from "node:test";
import { UsageError } from "../errors.js";
import { createSchedule, type ScheduleOptions } from "./schedule.js";

const near = (actual: number, expected: number) =>
  assert.ok(Math.abs(actual - expected) <= 1e-12, `${actual} is not ${expected}`);

test("linear warm-up, then half a cosine to the floor", () => {
  const rate = createSchedule({ learningRate: 2, steps: 15, warmupSteps: 4, floor: 0.25 });
  for (const [step, expected] of [0.5, 1, 1.5, 2, 2].entries()) near(rate(step), expected);
  near(rate(9), 1.25); // half-way of the descent: the middle of 2 and 0.5
  near(rate(14), 0.5);
  near(rate(1000), 0.5);
  for (let step = 5; step < 15; step++) assert.ok(rate(step) < rate(step - 1));
});

test("defaults: 3% warm-up, a tenth at the end", () => {
  const rate = createSchedule({ learningRate: 1e-3, steps: 200 });
  near(rate(0), 1e-3 / 6);
  near(rate(5), 1e-3);
  near(rate(199), 1e-4);
});

test("short runs: one step, no warm-up, nothing but warm-up", () => {
  near(createSchedule({ learningRate: 1, steps: 1 })(0), 1);
  near(createSchedule({ learningRate: 1, steps: 1, warmupSteps: 0 })(0), 1);
  near(createSchedule({ learningRate: 1, steps: 2, warmupSteps: 0, floor: 0 })(1), 0);
  const warm = createSchedule({ learningRate: 1, steps: 2, warmupSteps: 2 });
  assert.deepEqual([warm(0), warm(1)], [0.5, 1]);
});

test("options out of range", () => {
  const good: ScheduleOptions = { learningRate: 1, steps: 10 };
  const wrong: [Partial<ScheduleOptions>, RegExp][] = [
    [{ learningRate: 0 }, /learning rate/],
    [{ learningRate: -1 }, /learning rate/],
    [{ learningRate: Number.NaN }, /learning rate/],
    [{ learningRate: Number.POSITIVE_INFINITY }, /learning rate/],
    [{ steps: 0 }, /number of steps/],
    [{ steps: 1.5 }, /number of steps/],
    [{ warmupSteps: 11 }, /warm-up of 11 steps is longer than the whole run of 10/],
    [{ warmupSteps: -1 }, /warm-up/],
    [{ floor: 1.1 }, /floor/],
    [{ floor: Number.NaN }, /floor/],
  ];
  for (const [options, message] of wrong)
    assert.throws(
      () => createSchedule({ ...good, ...options }),
      (error: unknown) => error instanceof UsageError && message.test(error.message),
    );
});
