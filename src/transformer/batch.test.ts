/** Sequences that advance together against each on its own. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ModelConfig } from "../checkpoint/config.js";
import { WasmBackend } from "../compute/wasm/backend.js";
import { InputError } from "../errors.js";
import { TransformerBatch } from "./batch.js";
import type { CacheFormat } from "./kv-cache.js";
import { TransformerSession } from "./session.js";
import { memoryCheckpoint, randomIds, randomTensors, tinyConfig } from "./tiny-model.test.util.js";
import { freeWeights, loadDenseWeights, type ModelWeights } from "./weights.js";

async function withModel(
  config: ModelConfig,
  run: (backend: WasmBackend, weights: ModelWeights) => Promise<void>,
): Promise<void> {
  const backend = await WasmBackend.create({ threads: 1 });
  try {
    const weights = await loadDenseWeights(backend, memoryCheckpoint(config, randomTensors(config)));
    // The backend keeps the working area that the first run needed.
    await run(backend, weights);
    const used = backend.runtime.bytesInUse;
    await run(backend, weights);
    assert.equal(backend.runtime.bytesInUse, used, "all memory comes back");
    freeWeights(backend, weights);
  } finally {
    await backend.close();
  }
}

/** After each token of a sequence that runs by itself, a token at a time. */
async function logitsAlone(
  backend: WasmBackend,
  weights: ModelWeights,
  ids: Int32Array,
  cache: CacheFormat,
): Promise<Float32Array[]> {
  const session = new TransformerSession(backend, weights, ids.length, { cache });
  const rows: Float32Array[] = [];
  for (const id of ids) rows.push(await session.forward(Int32Array.of(id)));
  session.free();
  return rows;
}

const variants: readonly [name: string, overrides: Partial<ModelConfig>, cache: CacheFormat][] = [
  ["a llama, f32", {}, "f32"],
  ["a llama, f16", {}, "f16"],
  ["a llama, int8", {}, "int8"],
  ["query and key norms", { qkNorm: true, layers: 3 }, "f16"],
  ["a sliding window", { slidingWindow: 5 }, "f32"],
];

for (const [name, overrides, cache] of variants)
  test(`${name}: sequences of different lengths, joining and leaving, have the logits they have alone`, async () => {
    const config = tinyConfig(overrides);
    await withModel(config, async (backend, weights) => {
      const batch = new TransformerBatch(backend, weights, { sequences: 4, capacity: 64, chunk: 8, cache });
      const texts = [3, 11, 1, 20].map((length, i) => randomIds(length + 12, config.vocabularySize, i + 1));
      const alone = await Promise.all(texts.map((ids) => logitsAlone(backend, weights, ids, cache)));
      const sessions = texts.map((ids) => batch.createSession(ids.length));
      for (const [i, session] of sessions.entries())
        await session.forward(texts[i].subarray(0, -12 + texts[i].length));
      // Sequence i runs from step i on; each of them leaves after twelve.
      for (let step = 0; step < 15; step++) {
        const members = [0, 1, 2, 3].filter((i) => step >= i && step < i + 12);
        const positions = members.map((i) => sessions[i].position);
        const ids = members.map((i) => texts[i].subarray(sessions[i].position, sessions[i].position + 1));
        const logits = await batch.forward(
          members.map((i) => sessions[i]),
          ids,
        );
        for (const [m, i] of members.entries())
          assert.deepEqual(logits[m], alone[i][positions[m]], `step ${step}`);
      }
      for (const session of sessions) session.free();
      batch.free();
    });
  });

for (const [name, overrides, cache] of variants)
  test(`${name}: pieces of prompts beside single tokens have the logits they have alone`, async () => {
    const config = tinyConfig(overrides);
    await withModel(config, async (backend, weights) => {
      const batch = new TransformerBatch(backend, weights, { sequences: 3, capacity: 64, chunk: 12, cache });
      const texts = [14, 9, 20].map((length, i) => randomIds(length, config.vocabularySize, i + 1));
      const alone = await Promise.all(texts.map((ids) => logitsAlone(backend, weights, ids, cache)));
      const sessions = texts.map((ids) => batch.createSession(ids.length));
      for (const lengths of [
        [1, 5, 1],
        [7, 1, 6],
        [1, 2, 1],
        [4, 1, 10],
        [1, 0, 2],
      ]) {
        const members = [0, 1, 2].filter((i) => lengths[i] > 0);
        const pieces = members.map((i) =>
          texts[i].subarray(sessions[i].position, sessions[i].position + lengths[i]),
        );
        const logits = await batch.forward(
          members.map((i) => sessions[i]),
          pieces,
        );
        for (const [m, i] of members.entries())
          assert.deepEqual(logits[m], alone[i][sessions[i].position - 1], `${lengths}, sequence ${i}`);
      }
      assert.deepEqual(
        sessions.map(({ position }) => position),
        [14, 9, 20],
      );
      for (const session of sessions) session.free();
      batch.free();
    });
  });

const single = (ids: readonly number[]) => ids.map((id) => Int32Array.of(id));

test("what cannot run is refused, and nothing has advanced", async () => {
  const config = tinyConfig();
  await withModel(config, async (backend, weights) => {
    const batch = new TransformerBatch(backend, weights, { sequences: 2, capacity: 16, chunk: 4 });
    const [a, b, c] = [2, 8, 8].map((capacity) => batch.createSession(capacity));
    for (const session of [a, b, c]) await session.forward(Int32Array.of(1));
    const refused: [TransformerSession[], number[]][] = [
      [[], []],
      [
        [a, b, c],
        [1, 2, 3],
      ],
      [[a, b], [1]],
      [
        [b, b],
        [1, 2],
      ],
      [
        [a, b],
        [1, config.vocabularySize],
      ],
      [
        [a, b],
        [1, -1],
      ],
    ];
    for (const [sessions, ids] of refused)
      await assert.rejects(batch.forward(sessions, single(ids)), InputError);
    await assert.rejects(batch.forward([a, b], [Int32Array.of(1), Int32Array.of()]), InputError);
    await assert.rejects(batch.forward([b], [Int32Array.from({ length: 7 }, () => 1)]), InputError);
    await batch.forward([a, b], single([1, 2]));
    await assert.rejects(batch.forward([a, b], single([1, 2])), /full/);
    await assert.rejects(batch.forward([a], [Int32Array.of(1, 2)]), /full/);
    assert.deepEqual([a.position, b.position, c.position], [2, 2, 1]);
    for (const session of [a, b, c]) session.free();
    batch.free();
  });
});
