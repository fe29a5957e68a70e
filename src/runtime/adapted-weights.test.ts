/** An adapter beside the weights computes what it computes merged into them. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { mergePair } from "../adapter/adapter.js";
import type { AdapterBits } from "../adapter/peft-config.js";
import type { Backend } from "../compute/backend.js";
import { createBackend } from "../compute/create.js";
import { ReferenceBackend } from "../compute/reference/backend.js";
import { decodeLayer } from "../container/linear.js";
import { openFolder } from "../container/reader.js";
import { writeTinyAdapted, writeTinyFolder } from "../container/tiny-folder.test.util.js";
import { TransformerSession } from "../transformer/session.js";
import { largestDifference } from "../transformer/tiny-model.test.util.js";
import { loadDenseWeights, loadWeights, type ModelWeights, weightBytes } from "../transformer/weights.js";
import { folderSource } from "./folder-weights.js";

const IDS = Int32Array.from([1, 9, 30, 7, 7, 16, 8, 31, 0, 2]);
const work = mkdtempSync(join(tmpdir(), "pocketllm-adapted-"));
before(async () => {
  await writeTinyFolder({ out: join(work, "base") });
  for (const bits of [16, 8, 4] as const)
    await writeTinyAdapted(join(work, "base"), join(work, String(bits)), bits);
});
after(() => rmSync(work, { recursive: true }));

async function logits(backend: Backend, weights: ModelWeights): Promise<Float32Array> {
  const session = new TransformerSession(backend, weights, IDS.length);
  const values = await session.forward(IDS, { logits: "all" });
  session.free();
  return values;
}

/** With the adapter's product added to the decoded matrices, or without. */
async function dense(bits: AdapterBits, merged: boolean): Promise<Float32Array> {
  const backend = new ReferenceBackend();
  const folder = await openFolder(join(work, String(bits)));
  try {
    const { pairs, scale } = (await folder.adapter())!;
    const read = async (tensor: string) => {
      const name = tensor.replace(/\.weight$/, "");
      const coded = folder.layers.has(name);
      const weight = coded ? decodeLayer(await folder.coded(name)) : await folder.plain(tensor);
      const pair = pairs.get(name);
      if (merged && pair) mergePair(weight, pair, scale);
      return weight;
    };
    return await logits(backend, await loadDenseWeights(backend, { config: folder.config, read }));
  } finally {
    await folder.close();
  }
}

for (const bits of [16, 8, 4] as const)
  test(`${bits} bits: unmerged is merged, on every backend, and counts its memory`, async () => {
    const expected = await dense(bits, true);
    assert.ok(largestDifference(expected, await dense(bits, false)) > 0.05, "the adapter does something");
    for (const backend of [new ReferenceBackend(), await createBackend({ threads: 2 })]) {
      const folder = await openFolder(join(work, String(bits)));
      const base = await openFolder(join(work, "base"));
      try {
        const weights = await loadWeights(backend, folder.config, await folderSource(backend, folder));
        assert.ok(largestDifference(await logits(backend, weights), expected) < 1e-3);
        const without = await loadWeights(backend, base.config, await folderSource(backend, base));
        // q, k, v, o, gate, up, down of 2 layers of 16 and 24, keys and values of 8; rank 2, f32.
        const floats = 2 * 2 * (32 + 24 + 24 + 32 + 3 * 40);
        assert.equal(weightBytes(weights), weightBytes(without) + 4 * floats);
      } finally {
        await base.close();
        await folder.close();
        await backend.close();
      }
    }
  });
