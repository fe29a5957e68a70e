import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ReferenceBackend } from "../compute/reference/backend.js";
import { InputError } from "../errors.js";
import { TransformerSession } from "./session.js";
import {
  largestDifference,
  memoryCheckpoint,
  randomIds,
  randomTensors,
  tinyConfig,
} from "./tiny-model.test.util.js";
import { loadDenseWeights, type ModelWeights } from "./weights.js";

const config = tinyConfig();
const backend = new ReferenceBackend();
let weights: ModelWeights;

before(async () => {
  weights = await loadDenseWeights(backend, memoryCheckpoint(config, randomTensors(config)));
});
after(() => backend.close());

async function logitsInParts(ids: Int32Array, cuts: readonly number[]): Promise<Float32Array> {
  const session = new TransformerSession(backend, weights, ids.length);
  const out = new Float32Array(ids.length * config.vocabularySize);
  let from = 0;
  for (const to of [...cuts, ids.length]) {
    out.set(await session.forward(ids.subarray(from, to), { logits: "all" }), from * config.vocabularySize);
    from = to;
    assert.equal(session.position, to);
  }
  session.free();
  return out;
}

test("token by token, in uneven parts and at once give the same logits", async () => {
  const ids = randomIds(40, config.vocabularySize);
  const whole = await logitsInParts(ids, []);
  const single = await logitsInParts(
    ids,
    Array.from({ length: 39 }, (_, i) => i + 1),
  );
  const uneven = await logitsInParts(ids, [1, 18, 20, 37]);
  assert.ok(largestDifference(whole, single) < 1e-5);
  assert.ok(largestDifference(whole, uneven) < 1e-5);
});

test("an input longer than one prefill chunk gives the logits of the same input in smaller parts", async () => {
  const ids = randomIds(600, config.vocabularySize);
  const whole = await logitsInParts(ids, []);
  const parts = await logitsInParts(ids, [200, 400]);
  assert.ok(largestDifference(whole, parts) < 1e-5);
  const session = new TransformerSession(backend, weights, 600);
  const last = await session.forward(ids);
  assert.equal(last.length, config.vocabularySize);
  assert.ok(largestDifference(last, whole.subarray(599 * config.vocabularySize)) < 1e-5);
  session.free();
});

test("after truncate the sequence goes on from that position", async () => {
  const ids = randomIds(12, config.vocabularySize);
  const expected = await logitsInParts(ids, []);
  const session = new TransformerSession(backend, weights, 20);
  await session.forward(ids.subarray(0, 5));
  await session.forward(randomIds(9, config.vocabularySize, 99));
  session.truncate(5);
  const logits = await session.forward(ids.subarray(5), { logits: "all" });
  assert.ok(largestDifference(logits, expected.subarray(5 * config.vocabularySize)) < 1e-5);
  assert.throws(() => session.truncate(13), /cannot truncate to position 13: the session holds 12 tokens/);
  session.free();
});

test("two sessions do not disturb each other", async () => {
  const a = randomIds(600, config.vocabularySize, 1);
  const b = randomIds(600, config.vocabularySize, 2);
  const alone = [await logitsInParts(a, []), await logitsInParts(b, [])];
  const together = await Promise.all([logitsInParts(a, []), logitsInParts(b, [])]);
  assert.deepEqual(together, alone);
});

test("wrong input is refused in one line and leaves the session as it was", async () => {
  const session = new TransformerSession(backend, weights, 8);
  const refuse = (ids: number[], message: RegExp) =>
    assert.rejects(session.forward(Int32Array.from(ids)), (error) => {
      assert.ok(error instanceof InputError);
      assert.match(error.message, message);
      return true;
    });
  await session.forward(Int32Array.of(1, 2, 3));
  await refuse([], /no token ids/);
  await refuse([61], /token id 61 is outside the vocabulary of 61 tokens/);
  await refuse([-1], /token id -1 is outside/);
  await refuse([1, 2, 3, 4, 5, 6], /6 more tokens do not fit: 3 of this session's 8 are in use/);
  assert.equal(session.position, 3);
  session.free();
  for (const capacity of [0, -1, 1.5, 701, Number.NaN])
    assert.throws(() => new TransformerSession(backend, weights, capacity), /context is 1 to 700 tokens/);
});

test("a forward that begins before the last one has finished is a programming error", async () => {
  const session = new TransformerSession(backend, weights, 8);
  const first = session.forward(Int32Array.of(1));
  await assert.rejects(session.forward(Int32Array.of(2)), /before the previous call had finished/);
  await first;
  session.free();
});
