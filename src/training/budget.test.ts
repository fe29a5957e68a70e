import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { CorruptFileError, UsageError } from "../errors.js";
import { decidedSteps, stepsWithin } from "./budget.js";

const work = mkdtempSync(join(tmpdir(), "pocketllm-budget-"));
after(() => rmSync(work, { recursive: true, force: true }));

test("as many whole steps as fit what the rest leaves", () => {
  assert.equal(stepsWithin(100, { secondsPerStep: 3, secondsBeside: 10 }), 30);
  assert.equal(stepsWithin(13, { secondsPerStep: 3, secondsBeside: 10 }), 1);
  assert.throws(() => stepsWithin(12, { secondsPerStep: 3, secondsBeside: 10 }), UsageError);
});

test("the number is decided once, and kept for a resumed run", async () => {
  const folder = join(work, "run");
  assert.equal(await decidedSteps(folder, false, async () => 7), 7);
  assert.equal(await decidedSteps(folder, true, async () => 9), 7);
  assert.equal(await decidedSteps(folder, false, async () => 9), 9);
  assert.equal(await decidedSteps(join(work, "killed before"), true, async () => 5), 5);
  writeFileSync(join(folder, "budget.json"), '{"steps":');
  await assert.rejects(
    decidedSteps(folder, true, async () => 9),
    CorruptFileError,
  );
});
