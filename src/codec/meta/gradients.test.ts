// Hand-derived gradients of the kernels against finite differences of the plain double-precision forward pass.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { WasmRuntime } from "../../compute/wasm/runtime.js";
import { Random } from "../../random.js";
import { Arena, fromBlocks, LANES, toBlocks } from "./blocks.js";
import { groupSubVectors } from "./groups.js";
import { blockLayout, forward, initialParameters } from "./network.js";
import { META_DEFAULTS, type MetaOptions, type MetaShape, type Rln } from "./options.js";
import { MlpStack, Workspace } from "./stack.js";
import { type Model, Trainer } from "./train.js";

let runtime: WasmRuntime;
before(async () => {
  runtime = await WasmRuntime.create({ threads: 2 });
});
after(() => runtime.close());

const [ROWS, PER_ROW] = [36, 20];
const COUNT = ROWS * PER_ROW;

/** Away from the zeros and ones of the initial values, which hide mistakes. */
function perturbed(values: Float32Array, random: Random): Float32Array {
  return values.map((value) => value + 0.2 * random.normal());
}

/** The constant norms of rln "off". */
function fillNorms(shape: MetaShape, parameters: Float32Array): void {
  const { length } = blockLayout(shape);
  for (let at = 0; at < parameters.length; at += length)
    parameters.fill(1, at, at + shape.d).fill(0, at + shape.d, at + 2 * shape.d);
}

/** Slopes of f at some of the values, by central differences of what single precision really holds. */
function slopes(values: Float32Array, indices: number[], step: number, f: () => number): number[] {
  return indices.map((i) => {
    const kept = values[i];
    values[i] = kept + step;
    const [high, above] = [values[i], f()];
    values[i] = kept - step;
    const [low, below] = [values[i], f()];
    values[i] = kept;
    return (above - below) / (high - low);
  });
}

function assertClose(actual: number[], expected: number[], tolerance: number, what: string): void {
  const scale = Math.max(...expected.map(Math.abs));
  assert.ok(scale > 0, `${what}: all gradients are 0`);
  actual.forEach((value, i) => {
    assert.ok(
      Math.abs(value - expected[i]) <= tolerance * scale,
      `${what} ${i}: ${value}, by differences ${expected[i]} (largest ${scale})`,
    );
  });
}

function spread(length: number, count: number): number[] {
  return Array.from({ length: Math.min(count, length) }, (_, i) =>
    Math.floor((i * length) / Math.min(count, length)),
  );
}

for (const rln of ["rows", "columns", "off"] as Rln[]) {
  for (const d of [8, 4]) {
    test(`a stack's forward and backward pass, d ${d}, rln ${rln}`, () => {
      const random = new Random(5);
      const shape = { ...META_DEFAULTS, d, rln };
      const groups = groupSubVectors(ROWS, PER_ROW, rln);
      const parameters = perturbed(initialParameters(shape, random), random);
      if (rln === "off") fillNorms(shape, parameters);
      // In the order of the groups, as a batch has them; so the groups of the plain pass are consecutive too.
      const consecutive = { members: Int32Array.from({ length: COUNT }, (_, i) => i), starts: groups.starts };
      const input = new Float32Array(COUNT * d).map(() => random.normal());
      const weight = new Float32Array(COUNT * d).map(() => random.normal());
      const plain = () => {
        const h = Float64Array.from(input);
        forward(shape, parameters, h, consecutive);
        return h;
      };
      const objective = () => plain().reduce((sum, value, i) => sum + value * weight[i], 0);

      const arena = new Arena(runtime);
      const blocks = Math.ceil(COUNT / LANES);
      const workspace = new Workspace(arena, shape, blocks);
      const stack = new MlpStack(workspace, parameters);
      const identity = arena.words(blocks * LANES);
      runtime.i32(identity, blocks * LANES).set(consecutive.members);
      const batch = { count: COUNT, blocks, starts: groups.starts };
      workspace.gather(arena.floats(input), identity, stack.input, blocks);
      stack.forward(batch);
      const length = blocks * LANES * d;
      const output = fromBlocks(runtime.f32(stack.output, length), d, COUNT);
      plain().forEach((value, i) => {
        assert.ok(Math.abs(value - output[i]) < 1e-4, `output ${i}: ${output[i]} instead of ${value}`);
      });

      toBlocks(weight, d, runtime.f32(workspace.gradient, length));
      const gradients = stack.backward(batch, 1);
      const inputGradient = fromBlocks(runtime.f32(workspace.gradient, length), d, COUNT);
      const own = spread(parameters.length, 150).filter((i) => rln !== "off" || gradients[i] !== 0);
      assertClose(
        own.map((i) => gradients[i]),
        slopes(parameters, own, 2e-3, objective),
        1e-3,
        "parameter",
      );
      const inputs = spread(input.length, 30);
      assertClose(
        inputs.map((i) => inputGradient[i]),
        slopes(input, inputs, 2e-3, objective),
        1e-3,
        "input",
      );
      arena.free();
    });
  }
}

/**
 * The straight-through estimator is the exact gradient of a surrogate: entries fixed at the chosen codes, decoder
 * input q0 + (z - z0), with q0 and z0 constant; the codebook sees only its distance to z0.
 */
for (const loss of ["paper", "code"] as const) {
  test(`gradients of the whole loss "${loss}"`, () => {
    const random = new Random(9);
    const d = 8;
    const options: MetaOptions = {
      ...META_DEFAULTS,
      k: 32,
      rln: "rows",
      loss,
      batch: COUNT,
      stepsPerEpoch: 1,
    };
    const groups = groupSubVectors(ROWS, PER_ROW, options.rln);
    const vectors = new Float32Array(COUNT * d).map(() => random.normal());
    const importance = new Float32Array(COUNT).map(() => 0.5 + random.uniform());
    const trainer = new Trainer(runtime, { vectors, importance, groups }, options, random);
    try {
      const { codebook, ...networks } = trainer.model();
      const model: Model = {
        codebook,
        encoder: perturbed(networks.encoder, random),
        decoder: perturbed(networks.decoder, random),
      };
      trainer.setModel(model);
      const all = Int32Array.from({ length: ROWS }, (_, i) => i);
      const { codes } = trainer.encodeAll();
      const run = (parameters: Float32Array, from: Float64Array) => {
        forward(options, parameters, from, groups);
        return from;
      };
      const entries = (codebook: Float32Array) =>
        Float64Array.from({ length: COUNT * d }, (_, i) => codebook[codes[Math.floor(i / d)] * d + (i % d)]);
      const encode = (parameters: Float32Array) => run(parameters, Float64Array.from(vectors));
      const z0 = encode(model.encoder);
      const q0 = entries(model.codebook);
      const surrogate = (changed: Model) => {
        const z = encode(changed.encoder);
        const q = entries(changed.codebook);
        const y = run(
          changed.decoder,
          q0.map((value, i) => value + z[i] - z0[i]),
        );
        let error = 0;
        let distance = 0;
        for (let i = 0; i < y.length; i++) {
          error += importance[Math.floor(i / d)] * (y[i] - vectors[i]) ** 2;
          distance += (z[i] - q[i]) ** 2;
        }
        const mse = error / y.length;
        const total = (loss === "paper" ? Math.sqrt(mse) : mse) + (options.lambda * distance) / y.length;
        return { mse, total };
      };
      const gradients = trainer.gradients(all);
      const { mse } = surrogate(model);
      assert.ok(Math.abs(gradients.mse - mse) < 1e-5, `MSE ${gradients.mse} instead of ${mse}`);
      for (const part of ["encoder", "codebook", "decoder"] as const) {
        const some = spread(model[part].length, 60);
        assertClose(
          some.map((i) => gradients[part][i]),
          slopes(model[part], some, 2e-3, () => surrogate(model).total),
          2e-3,
          part,
        );
      }
    } finally {
      trainer.free();
    }
  });
}
