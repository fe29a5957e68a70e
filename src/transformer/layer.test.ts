import assert from "node:assert/strict";
import { test } from "node:test";
import type { Buffer } from "../compute/backend.js";
import { ReferenceBackend } from "../compute/reference/backend.js";
import { BufferGroup } from "./buffers.js";
import { allocateCache } from "./kv-cache.js";
import { forwardLayer, LayerSteps } from "./layer.js";
import { uploadRope } from "./rope.js";
import {
  largestDifference,
  memoryCheckpoint,
  randomTensors,
  randomUniform,
  tinyConfig,
} from "./tiny-model.test.util.js";
import { denseSource, freeLayer, layerLinears, loadLayer } from "./weights.js";
import { allocateWorkspace } from "./workspace.js";

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

test("between the steps the workspace holds the inputs of the matrices, and with them they explain the layer", async () => {
  const backend = new ReferenceBackend();
  const layer = await loadLayer(backend, config, denseSource(backend, memoryCheckpoint(config, tensors)), 1);
  const group = new BufferGroup(backend);
  const random = randomUniform(3);
  const before = Float32Array.from({ length: TOKENS * config.hiddenSize }, random);
  const workspace = allocateWorkspace(group, config, 10);
  const rope = uploadRope(group, config, 10);
  const input = (buffer: Buffer, columns: number) => backend.read(buffer, 0, TOKENS * columns);
  const hidden = group.upload(before);
  const steps = new LayerSteps(backend, config, workspace, TOKENS);
  steps.normalise(hidden, layer.inputNorm);
  const qkv = await input(workspace.normed, config.hiddenSize);
  steps.attend(layer, allocateCache(group, config, 10), 0, rope);
  const attended = await input(workspace.attended, config.heads * config.headSize);
  steps.addProjected(layer.o, workspace.attended, hidden);
  steps.normalise(hidden, layer.postAttentionNorm);
  const gateUp = await input(workspace.normed, config.hiddenSize);
  steps.activate(layer);
  const down = await input(workspace.gate, config.intermediateSize);
  steps.addProjected(layer.down, workspace.gate, hidden);

  // The whole layer at once is the same steps.
  const again = group.upload(before);
  const cache = allocateCache(group, config, 10);
  forwardLayer(backend, config, layer, workspace, {
    hidden: again,
    cache,
    tokens: TOKENS,
    position: 0,
    rope,
  });
  assert.deepEqual(await backend.read(again), await backend.read(hidden));
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
