/** Adapters over a compressed model: their gradients against finite differences, and what must not change them. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import type { Adapter } from "../adapter/adapter.js";
import { hostileModule } from "../checkpoint/test-data.test.util.js";
import { compress, parseTarget } from "../compress/index.js";
import { WasmBackend } from "../compute/wasm/backend.js";
import { WasmTraining } from "../compute/wasm/training.js";
import type { PocketFolder } from "../container/folder.js";
import { openFolder } from "../container/reader.js";
import { Random } from "../random.js";
import { Learner } from "../training/learner.js";
import { NextToken } from "../training/objective.js";
import { AdaptedModel, initialAdapter } from "./adapted-model.js";
import { FrozenModel } from "./frozen-model.js";

const work = mkdtempSync(join(tmpdir(), "pocketllm-adapted-model-"));
const source = join(work, "model");
const optimiser = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 };
const batch = [24, 17].map((length, i) => {
  const ids = Int32Array.from({ length }, (_, t) => (t * 37 + 5 + i) % 300);
  return { ids, scored: Uint8Array.from(ids, (_, t) => (t > 3 ? 1 : 0)) };
});

before(async () => {
  const { makeTinyLlama } = await hostileModule<{
    makeTinyLlama(dir: string, options: object): Promise<unknown>;
  }>("tiny-llama.mjs");
  await makeTinyLlama(source, { layers: 2, hidden: 64, intermediate: 160, tied: true });
  for (const method of ["trellis", "meta"] as const)
    await compress({ source, out: join(work, method), method, target: parseTarget("4x") });
});
after(() => rmSync(work, { recursive: true, force: true }));

/** An adapter of which both sides are random: at its start B is 0, and so is A's gradient. */
function randomAdapter(config: PocketFolder["config"]): Adapter {
  const adapter = initialAdapter(config, { rank: 3, alpha: 6, seed: 1 });
  const random = new Random(2);
  for (const { b } of adapter.pairs.values()) for (let i = 0; i < b.length; i++) b[i] = 0.1 * random.normal();
  return adapter;
}

interface Setup {
  readonly model: AdaptedModel;
  readonly learner: Learner;
  readonly adapter: Adapter;
}

async function withModel<T>(
  { method = "trellis", together = 1, threads = 2, residentBytes = undefined as number | undefined },
  use: (setup: Setup) => Promise<T>,
): Promise<T> {
  const backend = await WasmBackend.create({ threads });
  const folder = await openFolder(join(work, method));
  try {
    const training = new WasmTraining(backend);
    const base = await FrozenModel.open(backend, folder, residentBytes);
    const adapter = randomAdapter(folder.config);
    const model = new AdaptedModel(backend, training, folder.config, base, adapter);
    const objective = new NextToken(backend, training, 24);
    const learner = new Learner({ backend, training, model, objective, optimiser, together, context: 24 });
    return await use({ model, learner, adapter });
  } finally {
    await folder.close();
    await backend.close();
  }
}

/** What a first step of Adam without bias corrections would use: its moments tell the gradient. */
async function gradientsOf({ model, learner }: Setup): Promise<Map<string, Float32Array>> {
  await learner.gradients(batch);
  // With beta1 = 0 the mean is the gradient itself, and a learning rate of 0 changes nothing.
  model.update(1, 0, 1, { ...optimiser, beta1: 0 });
  const means = model.state.filter(({ name }) => name.endsWith(".mean"));
  const entries = means.map(
    async ({ name, read }) => [name.slice(0, -".mean".length), await read()] as const,
  );
  return new Map(await Promise.all(entries));
}

describe("an adapter's gradient", () => {
  for (const method of ["trellis", "meta"])
    test(`is that of finite differences, over a ${method} folder`, async () => {
      await withModel({ method }, async (setup) => {
        const gradients = await gradientsOf(setup);
        const { model, learner, adapter } = setup;
        const random = new Random(3);
        for (const [name, pair] of adapter.pairs)
          for (const side of ["a", "b"] as const) {
            const gradient = gradients.get(`${name}.lora_${side.toUpperCase()}`)!;
            // Along a random direction that the gradient leans to: a single element drowns in rounding.
            const size = Math.sqrt(gradient.reduce((sum, x) => sum + x * x, 0));
            assert.ok(size > 0, `${name} ${side}`);
            const direction = gradient.map((x) => x / size + random.normal() / Math.sqrt(gradient.length));
            const expected = gradient.reduce((sum, x, i) => sum + x * direction[i], 0);
            const lossAt = async (t: number) => {
              const values = pair[side].map((x, i) => x + t * direction[i]);
              model.setPairs(new Map([[name, { ...pair, [side]: values }]]));
              const loss = await learner.measure(batch);
              model.setPairs(new Map([[name, pair]]));
              return loss;
            };
            const step = 0.02;
            const actual = ((await lossAt(step)) - (await lossAt(-step))) / (2 * step);
            const tolerance = 0.02 * Math.abs(expected) + 1e-4;
            assert.ok(Math.abs(actual - expected) < tolerance, `${name} ${side}: ${expected}, ${actual}`);
          }
      });
    });

  test("does not depend on threads, on layers that stay, or on how many examples go together", async () => {
    const whole = await withModel({}, gradientsOf);
    assert.equal(whole.size, 2 * 7 * 2);
    for (const other of [
      { threads: 1 },
      { residentBytes: 0 },
      { together: 2 },
      { residentBytes: 0, together: 2 },
    ])
      assert.deepEqual(await withModel(other, gradientsOf), whole, JSON.stringify(other));
  });
});

test("a new adapter changes nothing, and the same seed gives the same", async () => {
  await withModel({}, async ({ model, learner, adapter }) => {
    const changed = await learner.measure(batch);
    const { config } = model;
    const fresh = initialAdapter(config, { rank: 3, alpha: 6, seed: 1 });
    assert.deepEqual(initialAdapter(config, { rank: 3, alpha: 6, seed: 1 }), fresh);
    assert.notDeepEqual(initialAdapter(config, { rank: 3, alpha: 6, seed: 2 }), fresh);
    model.setPairs(fresh.pairs);
    const start = await learner.measure(batch);
    assert.notEqual(start, changed);
    const zero = new Map(
      [...adapter.pairs].map(([name, { rank, a, b }]) => [name, { rank, a: a.fill(0), b }]),
    );
    model.setPairs(zero);
    assert.equal(await learner.measure(batch), start);
  });
});
