import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ReferenceBackend } from "../compute/reference/backend.js";
import { WasmBackend } from "../compute/wasm/backend.js";
import { InputError } from "../errors.js";
import type { CacheFormat } from "./kv-cache.js";
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

for (const format of ["f32", "f16"] as const)
  for (const scaling of [null, { type: "linear", factor: 4 } as const])
    test(`a shift is a new run without the forgotten tokens: ${format}, scaling ${scaling?.type}`, async () => {
      // In one layer keys and values depend on their own token alone, so there the shift is exact.
      const shallow = tinyConfig({ layers: 1, ropeScaling: scaling });
      const one = await loadDenseWeights(backend, memoryCheckpoint(shallow, randomTensors(shallow)));
      const ids = randomIds(60, shallow.vocabularySize);
      const [keep, discard] = [4, 17];
      const session = new TransformerSession(backend, one, 60, { cache: format });
      await session.forward(ids.subarray(0, 50));
      session.shift(keep, discard);
      assert.equal(session.position, 50 - discard);
      const shifted = await session.forward(ids.subarray(50), { logits: "all" });
      session.free();
      const fresh = new TransformerSession(backend, one, 60, { cache: format });
      await fresh.forward(Int32Array.of(...ids.subarray(0, keep), ...ids.subarray(keep + discard, 50)));
      const expected = await fresh.forward(ids.subarray(50), { logits: "all" });
      fresh.free();
      const difference = largestDifference(shifted, expected);
      assert.ok(difference < (format === "f32" ? 2e-5 : 0.02), `logits differ by ${difference}`);
    });

test("shifts out of range are refused", async () => {
  const session = new TransformerSession(backend, weights, 8);
  await session.forward(Int32Array.of(1, 2, 3));
  for (const [keep, discard] of [
    [2, 2],
    [-1, 1],
    [0, 0.5],
  ])
    assert.throws(() => session.shift(keep, discard), /cannot discard .* the session holds 3/);
  session.free();
});

test("packed caches take the memory that they promise, and give it back", async () => {
  const wasm = await WasmBackend.create({ threads: 1 });
  const deep = tinyConfig({ layers: 8 });
  const model = await loadDenseWeights(wasm, memoryCheckpoint(deep, randomTensors(deep)));
  const held = wasm.runtime.bytesInUse;
  const bytes = (format: CacheFormat) => {
    const [short, long] = [100, 600].map((capacity) => {
      const session = new TransformerSession(wasm, model, capacity, { cache: format });
      const bytes = wasm.runtime.bytesInUse;
      session.free();
      return bytes;
    });
    return long - short;
  };
  const halves = bytes("f32") - bytes("f16");
  // 16-bit keys and values: 2 bytes less for 2 numbers a head, layer and token.
  const expected = 500 * 8 * deep.kvHeads * deep.headSize * 2 * 2;
  assert.ok(Math.abs(halves / expected - 1) < 0.02, `${halves} bytes, not ${expected}`);
  assert.ok(bytes("int8") < bytes("f16"));
  assert.equal(wasm.runtime.bytesInUse, held);
  await wasm.close();
});
