/** Gradients of a real model against PyTorch's: test/torch/gradients.py made the fixture. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { openCheckpoint } from "../checkpoint/open.js";
import { WasmBackend } from "../compute/wasm/backend.js";
import { WasmTraining } from "../compute/wasm/training.js";
import { ResidentModel, targetsOf } from "./resident-model.test.util.js";

const ROOT = join(import.meta.dirname, "../..");

interface Fixture {
  readonly model: string;
  readonly ids: readonly number[];
  /** Mean over the positions that have a next token, in nats. */
  readonly loss: number;
  readonly gradients: Readonly<
    Record<string, { readonly norm: number; readonly elements: readonly (readonly [number, number])[] }>
  >;
}

test("loss and gradients of pocket-stories are PyTorch's", async () => {
  const path = join(ROOT, "src/transformer/torch-gradients.fixture.json");
  const fixture = JSON.parse(await readFile(path, "utf8")) as Fixture;
  const checkpoint = await openCheckpoint(join(ROOT, fixture.model));
  const tensors = new Map<string, Float32Array>();
  for (const name of checkpoint.tensors.keys()) tensors.set(name, await checkpoint.read(name));
  await checkpoint.close();
  const backend = await WasmBackend.create({ threads: 2 });
  try {
    const training = new WasmTraining(backend);
    const model = await ResidentModel.create({ backend, training }, checkpoint.config, tensors);
    const ids = Int32Array.from(fixture.ids);
    const scale = 1 / (ids.length - 1);
    let total = 0;
    const gradients = await model.gradientsOf([ids], async ({ from, tokens: rows, logits }) => {
      const loss = backend.allocate(rows);
      const columns = checkpoint.config.vocabularySize;
      training.crossEntropy({ logits, targets: targetsOf(ids, from, rows), loss, rows, columns, scale });
      for (const value of await backend.read(loss)) total += value;
      backend.free(loss);
    });
    assert.ok(Math.abs(total * scale - fixture.loss) < 1e-5 * fixture.loss, `loss ${total * scale}`);
    assert.deepEqual([...gradients.keys()].sort(), Object.keys(fixture.gradients).sort());
    for (const [name, values] of gradients) {
      const { norm, elements } = fixture.gradients[name];
      const actual = Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));
      assert.ok(Math.abs(actual - norm) < 2e-5 * norm, `${name}: norm ${actual}, PyTorch's ${norm}`);
      for (const [index, value] of elements) {
        const message = `${name}[${index}] is ${values[index]}, PyTorch's ${value}`;
        assert.ok(Math.abs(values[index] - value) < 2e-5 * Math.abs(value), message);
      }
    }
  } finally {
    await backend.close();
  }
});
