import assert from "node:assert/strict";
import { test } from "node:test";
import type { Buffer } from "../compute/backend.js";
import { ReferenceBackend } from "../compute/reference/backend.js";
import { BufferGroup } from "./buffers.js";
import { forwardLayer, type TapSite } from "./layer.js";
import { uploadRope } from "./rope.js";
import {
  largestDifference,
  memoryCheckpoint,
  randomTensors,
  randomUniform,
  tinyConfig,
} from "./tiny-model.test.util.js";
import { denseSource, freeLayer, layerLinears, loadLayer } from "./weights.js";
import { allocateCache, allocateWorkspace } from "./workspace.js";

const config = tinyConfig();
const tensors = randomTensors(config);
const TOKENS = 6;

/** x [tokens, inputs] W^T in float64. */
function multiply(x: Float32Array, name: string): number[] {
  const weight = tensors.get(`${name}.weight`)!;
  const inputs = x.length / TOKENS;
  const outputs = weight.length / inputs;
  return Array.from({ length: TOKENS * outputs }, (_, at) => {
    const token = Math.floor(at / outputs);
    const row = at % outputs;
    let sum = 0;
    for (let i = 0; i < inputs; i++) sum += x[token * inputs + i] * weight[row * inputs + i];
    return sum;
  });
}

test("taps see the inputs of the matrices, in order, and with the outputs they explain the layer", async () => {
  const backend = new ReferenceBackend();
  const layer = await loadLayer(backend, config, denseSource(backend, memoryCheckpoint(config, tensors)), 1);
  const group = new BufferGroup(backend);
  const random = randomUniform(3);
  const before = Float32Array.from({ length: TOKENS * config.hiddenSize }, random);
  const hidden = group.upload(before);
  const taps: [TapSite, number, Promise<Float32Array>][] = [];
  const columns = { qkv: 32, o: 32, gateUp: 32, down: 44 };
  forwardLayer(backend, config, layer, allocateWorkspace(group, config, 10), {
    hidden,
    cache: allocateCache(group, config, 10),
    tokens: TOKENS,
    position: 0,
    rope: uploadRope(group, config, 10),
    tap: (site: TapSite, x: Buffer, tokens: number) => {
      taps.push([site, tokens, backend.read(x, 0, tokens * columns[site])]);
    },
  });
  assert.deepEqual(
    taps.map(([site, tokens]) => `${site} ${tokens}`),
    ["qkv 6", "o 6", "gateUp 6", "down 6"],
  );
  const [qkv, attended, gateUp, down] = await Promise.all(taps.map(([, , x]) => x));
  const names = layerLinears(config, 1);

  const norm = (x: ArrayLike<number>, weight: Float32Array) =>
    Float32Array.from(x, (value, at) => {
      const row = Math.floor(at / weight.length) * weight.length;
      let squares = 0;
      for (let i = 0; i < weight.length; i++) squares += x[row + i] ** 2;
      return (value / Math.sqrt(squares / weight.length + config.rmsNormEpsilon)) * weight[at - row];
    });
  assert.ok(
    largestDifference(qkv, norm(before, tensors.get("model.layers.1.input_layernorm.weight")!)) < 1e-5,
  );
  const middle = multiply(attended, names.o.name).map((v, i) => v + before[i]);
  const norm2 = tensors.get("model.layers.1.post_attention_layernorm.weight")!;
  assert.ok(largestDifference(gateUp, norm(middle, norm2)) < 1e-5);
  const up = multiply(gateUp, names.up.name);
  const inner = multiply(gateUp, names.gate.name).map((g, i) => (g / (1 + Math.exp(-g))) * up[i]);
  assert.ok(largestDifference(down, inner) < 1e-4);
  const end = multiply(down, names.down.name).map((v, i) => v + middle[i]);
  assert.ok(largestDifference(await backend.read(hidden), end) < 1e-4);

  group.free();
  freeLayer(backend, layer);
});

test("more tokens than the workspace holds are refused before anything is computed", async () => {
  const backend = new ReferenceBackend();
  const layer = await loadLayer(backend, config, denseSource(backend, memoryCheckpoint(config, tensors)), 0);
  const group = new BufferGroup(backend);
  const options = {
    hidden: group.allocate(5 * config.hiddenSize),
    cache: allocateCache(group, config, 5),
    tokens: 5,
    position: 0,
    rope: uploadRope(group, config, 5),
  };
  const workspace = allocateWorkspace(group, config, 4);
  assert.throws(
    () => forwardLayer(backend, config, layer, workspace, options),
    /5 tokens for a workspace of 4/,
  );
});
