/** A PocketLLM folder, loaded: what its Linears compute is what the decoded matrices compute. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { TrellisLinear } from "../codec/trellis/linear.js";
import type { Backend } from "../compute/backend.js";
import { createBackend } from "../compute/create.js";
import { DenseLinear } from "../compute/linear.js";
import { ReferenceBackend } from "../compute/reference/backend.js";
import type { PocketFolder } from "../container/folder.js";
import { decodeLayer } from "../container/linear.js";
import { openFolder } from "../container/reader.js";
import { TieredLinear } from "../container/tiered-linear.js";
import { writeTinyFolder } from "../container/tiny-folder.test.util.js";
import { TransformerSession } from "../transformer/session.js";
import { largestDifference } from "../transformer/tiny-model.test.util.js";
import { loadDenseWeights, loadWeights, type ModelWeights } from "../transformer/weights.js";
import { folderSource } from "./folder-weights.js";

const IDS = Int32Array.from([1, 9, 30, 7, 7, 16, 8, 31, 0, 2]);
const temporary = mkdtempSync(join(tmpdir(), "pocketllm-folder-"));
let folder: PocketFolder;
/** Logits with every matrix decoded to f32, on the reference backend. */
let expected: Float32Array;

async function logits(backend: Backend, weights: ModelWeights, tokens: number): Promise<Float32Array> {
  const session = new TransformerSession(backend, weights, IDS.length);
  const parts: number[] = [];
  for (let from = 0; from < IDS.length; from += tokens)
    parts.push(...(await session.forward(IDS.subarray(from, from + tokens), { logits: "all" })));
  session.free();
  return Float32Array.from(parts);
}

before(async () => {
  const out = join(temporary, "tiny");
  await writeTinyFolder({ out });
  folder = await openFolder(out);
  const read = async (name: string) => {
    const layer = name.replace(/\.weight$/, "");
    return folder.layers.has(layer) ? decodeLayer(await folder.coded(layer)) : await folder.plain(name);
  };
  const backend = new ReferenceBackend();
  const dense = await loadDenseWeights(backend, { config: folder.config, read });
  expected = await logits(backend, dense, IDS.length);
  const spread = Math.max(...expected) - Math.min(...expected);
  assert.ok(spread > 1, `logits spread over ${spread} only`);
});

after(async () => {
  await folder.close();
  rmSync(temporary, { recursive: true });
});

for (const [name, create] of [
  ["reference", async (): Promise<Backend> => new ReferenceBackend()],
  ["wasm", (): Promise<Backend> => createBackend({ threads: 2 })],
] as const)
  test(`${name}: coded weights give the logits of the decoded ones, prefill and token by token`, async () => {
    const backend = await create();
    try {
      const weights = await loadWeights(backend, folder.config, await folderSource(backend, folder));
      assert.ok(weights.layers[1].q instanceof TrellisLinear, "trellis stays coded");
      assert.ok(weights.layers[0].q instanceof DenseLinear, "meta is decoded once");
      assert.ok(weights.layers[1].down instanceof DenseLinear, "stored as it is");
      assert.ok(weights.head instanceof TieredLinear, "tiers");
      for (const tokens of [IDS.length, 4, 1]) {
        const difference = largestDifference(await logits(backend, weights, tokens), expected);
        // One token at a time the kernels look up tables of 13-bit integers: 1e-3 of an output's size.
        assert.ok(difference < (tokens === IDS.length ? 1e-3 : 2e-2), `${tokens} tokens: ${difference}`);
      }
    } finally {
      await backend.close();
    }
  });
