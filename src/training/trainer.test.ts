import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, test } from "node:test";
import { InputError } from "../errors.js";
import type { TrainingSet } from "./data.js";
import { NoGainError, runTraining, type Trainee, type TrainerOptions } from "./trainer.js";

/** Measured after every tenth. */
const STEPS = 100;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "pocketllm-trainer-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const example = { ids: Int32Array.of(1, 2), scored: Uint8Array.of(0, 1) };
const set: TrainingSet = {
  training: [example],
  heldOut: [example],
  copies: 0,
  leftOut: 0,
  fingerprint: "0",
};

/** Its one number is how many tenths of its steps it has taken; `losses` are those on held-out text by that number. */
class Counter implements Trainee {
  readonly steps = new Float32Array(1);
  readonly seen: number[] = [];

  constructor(
    readonly losses: readonly number[],
    /** Called before each step. */
    readonly before: (step: number) => void = () => {},
    readonly total = STEPS,
  ) {}

  get state() {
    const { steps } = this;
    const write = (values: Float32Array) => steps.set(values);
    return [{ name: "steps", length: 1, read: () => steps, write }];
  }

  async step(step: number) {
    this.before(step);
    this.seen.push(step);
    this.steps[0] = (10 * (step + 1)) / this.total;
    return { loss: 1, gradientNorm: 1 };
  }

  async measure() {
    return this.losses[this.steps[0]];
  }
}

function run(trainee: Trainee, change: Partial<TrainerOptions> = {}) {
  return runTraining(trainee, {
    ...{ set, steps: STEPS, batch: 1, learningRate: 0.1, seed: 0, folder, resume: false, stage: "training" },
    identity: { model: "m", options: "o" },
    ...change,
  });
}

test("ends with the last step where that is the best", async () => {
  const trainee = new Counter([3, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4, 2.3, 2.2, 2.1, 2]);
  const { steps, before, after } = await run(trainee);
  assert.deepEqual(
    { steps, before, after, kept: trainee.steps[0] },
    { steps: 100, before: 3, after: 2, kept: 10 },
  );
});

test("ends with the best where later ones are worse", async () => {
  const trainee = new Counter([3, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4, 2.3, 2, 2.1, 2.2]);
  const { steps, after } = await run(trainee);
  assert.deepEqual({ steps, after, kept: trainee.steps[0] }, { steps: 100, after: 2, kept: 8 });
});

test("stops after three measurements that are no better", async () => {
  const trainee = new Counter([3, 2.5, 2, 2.1, 2, 2.2, 2.1, 2, 2.1, 1, 1]);
  const { steps, after } = await run(trainee);
  // Those of the first half do not count.
  assert.deepEqual({ steps, after, kept: trainee.steps[0] }, { steps: 80, after: 2, kept: 2 });
});

test("goes on to the end of a run of few steps, which say little one by one", async () => {
  const trainee = new Counter([3, 2.5, 2.6, 2.6, 2.6, 2.6, 2.6, 2.6, 2.6, 2.6, 2], () => {}, 10);
  const { steps, after } = await run(trainee, { steps: 10 });
  assert.deepEqual({ steps, after, kept: trainee.steps[0] }, { steps: 10, after: 2, kept: 10 });
});

test("nothing better than the start is an error", async () => {
  await assert.rejects(run(new Counter([3, 3, 4, ...Array(8).fill(3.5)])), (error) => {
    assert.ok(error instanceof NoGainError && error instanceof InputError);
    assert.match(error.message, /is 3\.000 before and 3\.500 after training: nothing is written/);
    return true;
  });
});

test("killed and resumed, it ends with the same", async () => {
  const losses = [3, 2.9, 2, 2.7, 2.1, 1.9, 2.4, 2.3, 2, 2.1, 2.2];
  const whole = new Counter(losses);
  const expected = await run(whole);
  for (let kill = 0; kill < expected.steps; kill += 7) {
    await rm(folder, { recursive: true, force: true });
    const killed = new Counter(losses, (step) => {
      if (step === kill) throw new Error("killed");
    });
    await assert.rejects(run(killed), /killed/);
    const resumed = new Counter(losses);
    const { steps, before, after } = await run(resumed, { resume: true });
    assert.deepEqual([steps, before, after], [expected.steps, expected.before, expected.after]);
    assert.equal(resumed.steps[0], whole.steps[0]);
    assert.ok(kill < 10 || resumed.seen[0] > 0, "does not begin again");
  }
});
