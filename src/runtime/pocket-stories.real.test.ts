/** The repository's story model against the loss that its training recorded. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { evaluate } from "../evaluate/evaluate.js";
import { loadModel } from "./load.js";
import { POCKET_STORIES, sharedPath } from "./real-models.test.util.js";

const VALIDATION = sharedPath("text/tinystories/tinystories_val.txt");
const skip = VALIDATION ? false : "../shared is missing";

test("2.2649 nats a token on the 120,000 characters held out, windows of 256", { skip }, async () => {
  const text = readFileSync(VALIDATION!, "utf8").slice(0, 120_000);
  const recorded: unknown = JSON.parse(readFileSync(join(POCKET_STORIES, "training.json"), "utf8"));
  const expected = (recorded as { val_nats_per_token: number }).val_nats_per_token;
  const model = await loadModel(POCKET_STORIES);
  try {
    const result = await evaluate({ model, text, context: 256 });
    assert.equal(result.windows, 126);
    const nats = Math.log(result.perplexity);
    // The recorded arithmetic was f32 too, in another order of sums.
    assert.ok(Math.abs(nats - expected) < 2e-4, `${nats} nats, recorded ${expected}`);
  } finally {
    await model.close();
  }
});
