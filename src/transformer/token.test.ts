/** A session over coded matrices, one token at a time: by look-ups and exactly, against the reference. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { codeForRate, type Rate } from "../codec/trellis/code.js";
import { defaultTables } from "../codec/trellis/default-tables.js";
import { TrellisLinear } from "../codec/trellis/linear.js";
import { packTrellis, trellisTensors } from "../codec/trellis/stored.js";
import type { Backend } from "../compute/backend.js";
import { ReferenceBackend } from "../compute/reference/backend.js";
import { WasmBackend } from "../compute/wasm/backend.js";
import type { Decoding } from "./scratch.js";
import { TransformerSession } from "./session.js";
import {
  largestDifference,
  memoryCheckpoint,
  randomIds,
  randomTensors,
  randomUniform,
  tinyConfig,
} from "./tiny-model.test.util.js";
import { freeWeights, type LinearSpec, loadWeights } from "./weights.js";

const config = tinyConfig({ qkvBias: true, outputBias: true, hiddenSize: 64, intermediateSize: 96 });
const checkpoint = memoryCheckpoint(config, randomTensors(config));
const IDS = randomIds(12, config.vocabularySize);
const RATES: readonly Rate[] = [1, 1.33, 1.5, 2, 2.67, 3, 4];

/** A matrix of random codes, at a rate and with a rotation that depend on its name. */
function randomMatrix({ name, outputs, inputs }: LinearSpec) {
  const seed = [...name].reduce((sum, letter) => sum + letter.charCodeAt(0), 0);
  const random = randomUniform(seed);
  const rate = RATES[seed % RATES.length];
  const code = { ...codeForRate(rate), interleave: 1, tailBiting: true, maps: "split" as const };
  const { codes } = trellisTensors(outputs, inputs, code);
  const groups = code.codeBits === 4 ? 2 * codes.shape[0] : codes.shape[0];
  const widths = [...new Set(code.widths)].sort();
  return packTrellis({
    ...{ rows: outputs, columns: inputs, code, seed: seed % 2 },
    codes: Uint8Array.from({ length: groups * outputs }, () => ((random() + 1) / 2) * 2 ** code.codeBits),
    tables: widths.map((width) => defaultTables(code.codeBits, width).tables),
    scales: Float32Array.from({ length: outputs }, () => (1.5 + random()) / Math.sqrt(inputs)),
  });
}

async function logits(backend: Backend, decoding: Decoding, tokens: number): Promise<Float32Array> {
  const weights = await loadWeights(backend, config, {
    async linear(spec) {
      const bias = spec.bias ? await checkpoint.read(`${spec.name}.bias`) : undefined;
      return new TrellisLinear(backend, randomMatrix(spec), bias, spec.name);
    },
    vector: (name) => checkpoint.read(name),
  });
  const session = new TransformerSession(backend, weights, IDS.length, { decoding });
  const parts: number[] = [];
  for (let from = 0; from < IDS.length; from += tokens)
    parts.push(...(await session.forward(IDS.subarray(from, from + tokens), { logits: "all" })));
  session.free();
  freeWeights(backend, weights);
  return Float32Array.from(parts);
}

for (const [name, tokens] of [
  ["a token on its own: look-ups", 1],
  ["tokens together: products of whole numbers", IDS.length],
] as const)
  test(`${name} are nearly exact, whatever the threads; all memory comes back`, async () => {
    const expected = await logits(new ReferenceBackend(), "exact", IDS.length);
    const spread = Math.max(...expected) - Math.min(...expected);
    assert.ok(
      largestDifference(await logits(new ReferenceBackend(), "fast", tokens), expected) < 1e-4 * spread,
    );
    let first: Float32Array | undefined;
    for (const threads of [1, 2]) {
      const backend = await WasmBackend.create({ threads });
      try {
        const exact = largestDifference(await logits(backend, "exact", tokens), expected);
        assert.ok(exact < 1e-4 * spread, `exact: ${exact} of ${spread}`);
        const fast = await logits(backend, "fast", tokens);
        const difference = largestDifference(fast, expected);
        assert.ok(difference < 2e-2 * spread, `fast: ${difference} of ${spread}`);
        assert.ok(difference > exact, "the fast way was not used");
        assert.deepEqual(fast, first ?? fast);
        first = fast;
        const used = backend.runtime.bytesInUse;
        await logits(backend, "fast", tokens);
        assert.equal(backend.runtime.bytesInUse, used);
      } finally {
        await backend.close();
      }
    }
  });
