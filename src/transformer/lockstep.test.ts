/** Sequences that grow together predict what each predicts alone. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { ModelConfig } from "../checkpoint/config.js";
import type { DenseLinear } from "../compute/linear.js";
import { WasmBackend } from "../compute/wasm/backend.js";
import { LockstepSession } from "./lockstep.js";
import { TransformerSession } from "./session.js";
import {
  largestDifference,
  memoryCheckpoint,
  randomIds,
  randomTensors,
  tinyConfig,
} from "./tiny-model.test.util.js";
import { loadDenseWeights } from "./weights.js";

const backend = await WasmBackend.create({ threads: 2 });
after(() => backend.close());

const families: readonly Partial<ModelConfig>[] = [
  {},
  { kvHeads: 4, tiedEmbeddings: false, qkvBias: true },
  { kvHeads: 1, qkNorm: true, slidingWindow: 4 },
];
for (const family of families)
  test(`as alone: ${JSON.stringify(family)}`, async () => {
    const config = tinyConfig(family);
    const weights = await loadDenseWeights(backend, memoryCheckpoint(config, randomTensors(config)));
    const model = {
      ...weights,
      embedding: weights.embedding as DenseLinear,
      head: weights.head as DenseLinear,
      openLayer: async (index: number) => ({ layer: weights.layers[index] }),
    };
    const [sequences, length] = [5, 9];
    const all = Array.from({ length: sequences }, (_, i) => randomIds(length, config.vocabularySize, i));
    const together = new LockstepSession(backend, model, sequences, length);
    const alone = all.map(() => new TransformerSession(backend, weights, length));
    for (let at = 0; at < length; at++) {
      const logits = await together.forward(Int32Array.from(all, (ids) => ids[at]));
      for (const [i, session] of alone.entries()) {
        const expected = await session.forward(all[i].subarray(at, at + 1));
        const row = logits.subarray(i * config.vocabularySize, (i + 1) * config.vocabularySize);
        assert.ok(largestDifference(row, expected) < 1e-4, `sequence ${i} at ${at}`);
      }
    }
    together.free();
  });
