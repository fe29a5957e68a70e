/** `bench` as a user runs it: what it reports, not how fast. */
import assert from "node:assert/strict";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { POCKET_STORIES } from "../../runtime/real-models.test.util.js";
import { errorLines, run, succeed } from "../run.test.util.js";

const few = ["--threads", "1", "--tokens", "2", "--runs", "1"];

test("bench --json has the contract's keys, and the other models beside", async () => {
  const { stdout } = await succeed(
    ...["bench", POCKET_STORIES, "--against", POCKET_STORIES, ...few, "--json"],
  );
  const report = JSON.parse(stdout) as Record<string, number> & { against: Record<string, number>[] };
  assert.equal(report.against.length, 1);
  for (const measured of [report, report.against[0]])
    for (const key of ["prefill", "decode", "timeToFirstToken", "residentBytes", "loadSeconds"])
      assert.ok(measured[key] > 0, `${key} is ${measured[key]}`);
  assert.equal(report["fileBytes"], (await stat(join(POCKET_STORIES, "model.safetensors"))).size);
  assert.ok(report["residentBytes"] > report["heldBytes"] + report["cacheBytes"]);
  assert.equal(report["threads"], 1);
});

test("what cannot be loaded is one line, whichever model it is", async () => {
  for (const models of [["nowhere"], [POCKET_STORIES, "--against", "nowhere"]]) {
    const refused = await run("bench", ...models, ...few);
    assert.equal(refused.code, 1, refused.stderr);
    assert.equal(errorLines(refused).length, 1, refused.stderr);
    assert.match(errorLines(refused)[0], /nowhere/);
  }
});
