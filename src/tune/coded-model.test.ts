import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { openCheckpoint } from "../checkpoint/open.js";
import { hostileModule } from "../checkpoint/test-data.test.util.js";
import { compress, parseTarget } from "../compress/index.js";
import { WasmBackend } from "../compute/wasm/backend.js";
import { WasmTraining } from "../compute/wasm/training.js";
import { openFolder } from "../container/reader.js";
import { CodedModel } from "./coded-model.js";
import { Distiller } from "./distiller.js";
import { OriginalModel } from "./original.js";

const work = mkdtempSync(join(tmpdir(), "pocketllm-coded-model-"));
const source = join(work, "model");
const out = join(work, "folder");
const ids = Int32Array.from({ length: 40 }, (_, i) => (i * 37 + 5) % 300);
const batch = [{ ids, scored: new Uint8Array(40).fill(1) }];

before(async () => {
  const { makeTinyLlama } = await hostileModule<{
    makeTinyLlama(dir: string, options: object): Promise<unknown>;
  }>("tiny-llama.mjs");
  await makeTinyLlama(source, { layers: 2, hidden: 64, intermediate: 160, tied: true });
  await compress({ source, out, target: parseTarget("6x") });
});
after(() => rmSync(work, { recursive: true, force: true }));

/** Gradients of a batch's distillation, by parameter. */
async function gradients(tables: boolean, residentBytes?: number): Promise<Map<string, Float32Array>> {
  const backend = await WasmBackend.create({ threads: 2 });
  const folder = await openFolder(out);
  const checkpoint = await openCheckpoint(source);
  try {
    const training = new WasmTraining(backend);
    const model = await CodedModel.open(backend, training, folder, residentBytes);
    const teacher = await OriginalModel.open(backend, checkpoint);
    const distiller = new Distiller(backend, training, teacher, model, { windows: 1, context: 40 });
    // Twice: what a batch leaves must not reach the next.
    await distiller.gradients(batch, !tables);
    await distiller.gradients(batch, tables);
    return new Map(model.parameters.map(({ name, gradient }) => [name, gradient.slice()]));
  } finally {
    await checkpoint.close();
    await folder.close();
    await backend.close();
  }
}

test("scales get from each matrix's output the gradient that they get from its weights", async () => {
  const [whole, cheap] = [await gradients(true), await gradients(false)];
  assert.ok([...whole.keys()].filter((name) => name.endsWith(".scales")).length >= 15);
  for (const [name, expected] of whole) {
    const actual = cheap.get(name)!;
    const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    assert.ok(largest > 0, name);
    if (name.endsWith(".tables")) assert.ok(actual.every((x) => x === 0));
    else
      for (const [i, x] of actual.entries())
        assert.ok(Math.abs(x - expected[i]) < 1e-3 * largest, `${name} ${i}: ${x}, ${expected[i]}`);
  }
});

test("layers decoded once or twice a step give the same gradients, bit for bit", async () => {
  assert.deepEqual(await gradients(false, 0), await gradients(false));
});
