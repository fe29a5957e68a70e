/**
 * Measured sensitivities against the divergence that noise on one matrix really causes, and what must not
 * change them.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import type { ModelConfig } from "../checkpoint/config.js";
import { DenseCheckpoint } from "../checkpoint/dense-checkpoint.js";
import { expectedTensors } from "../checkpoint/tensors.js";
import type { Buffer } from "../compute/backend.js";
import { DenseLinear } from "../compute/linear.js";
import { WasmBackend } from "../compute/wasm/backend.js";
import { InputError } from "../errors.js";
import { Random } from "../random.js";
import { TransformerSession } from "../transformer/session.js";
import { tinyConfig } from "../transformer/tiny-model.test.util.js";
import { freeWeights, loadDenseWeights, loadWeights } from "../transformer/weights.js";
import { codedMatrices } from "./matrices.js";
import { type Sensitivities, tierRows } from "./plan.js";
import { measureSensitivities } from "./sensitivity.js";

type Tensors = ReadonlyMap<string, Float32Array>;

const backends = await Promise.all([1, 2, 3].map((threads) => WasmBackend.create({ threads })));
const backend = backends[1];
after(() => Promise.all(backends.map((b) => b.close())));

const SHAPE = { hiddenSize: 64, intermediateSize: 96, heads: 4, kvHeads: 2, headSize: 16 };
const CONTEXT = 64;

/**
 * Gaussian weights. Queries and keys are large, so that attention picks a few tokens: an average over many
 * would leave the inputs of later matrices much in common, position for position.
 */
function gaussianTensors(config: ModelConfig): Tensors {
  const random = new Random(1);
  const tensors = new Map<string, Float32Array>();
  for (const [name, shape] of expectedTensors(config)) {
    const length = shape.reduce((a, b) => a * b, 1);
    const deviation = /embed|lm_head/.test(name) ? 0.25 : (/[qk]_proj/.test(name) ? 1.7 : 1) / Math.sqrt(64);
    const value = name.includes("norm") ? () => 1 : () => deviation * random.normal();
    tensors.set(name, Float32Array.from({ length }, value));
  }
  return tensors;
}

function checkpointOf(config: ModelConfig, tensors: Tensors): Checkpoint {
  return new DenseCheckpoint({
    source: "memory",
    format: "huggingface",
    config,
    huggingFaceConfig: {},
    generationConfig: null,
    tensors: new Map(
      [...expectedTensors(config)].map(([name, shape]) => [name, { name, shape, storedAs: "F32" }]),
    ),
    load: async (name) => {
      const values = tensors.get(name);
      if (!values) throw new InputError(`no tensor ${name}`);
      return values.slice();
    },
    tokenizer: async () => null,
    hash: async () => "",
    close: async () => {},
  });
}

function randomWindows(count: number, vocabulary: number, length = CONTEXT): Int32Array[] {
  const random = new Random(2);
  return Array.from({ length: count }, () => Int32Array.from({ length }, () => random.below(vocabulary)));
}

/** Log-probabilities of every position, [tokens, vocabulary] a window. */
async function predict(config: ModelConfig, tensors: Tensors, windows: readonly Int32Array[]) {
  const weights = await loadDenseWeights(backend, checkpointOf(config, tensors));
  const results: Float64Array[] = [];
  for (const ids of windows) {
    const session = new TransformerSession(backend, weights, ids.length);
    const rows = Float64Array.from(await session.forward(ids, { logits: "all" }));
    session.free();
    for (let from = 0; from < rows.length; from += config.vocabularySize) {
      const row = rows.subarray(from, from + config.vocabularySize);
      const total = Math.log(row.reduce((sum, x) => sum + Math.exp(x), 0));
      for (let c = 0; c < row.length; c++) row[c] -= total;
    }
    results.push(rows);
  }
  freeWeights(backend, weights);
  return results;
}

/** Mean KL(p || q) of a position, in nats. */
function divergence(p: readonly Float64Array[], q: readonly Float64Array[]): number {
  let sum = 0;
  for (const [w, rows] of p.entries())
    for (let i = 0; i < rows.length; i++) sum += Math.exp(rows[i]) * (rows[i] - q[w][i]);
  return sum / (p.length * CONTEXT);
}

/** Lower triangular L of H = L Lᵀ, row-major, in float64. */
function cholesky(h: Float64Array, n: number): Float64Array {
  const l = new Float64Array(n * n);
  for (let j = 0; j < n; j++)
    for (let i = j; i < n; i++) {
      let sum = h[i * n + j];
      for (let k = 0; k < j; k++) sum -= l[i * n + k] * l[j * n + k];
      l[i * n + j] = i === j ? Math.sqrt(sum) : sum / l[j * n + j];
    }
  return l;
}

/** A matrix that sums the products of its inputs. */
class WatchedLinear extends DenseLinear {
  readonly gram: Buffer = backend.allocate(this.inputs * this.inputs);
  tokens = 0;
  override forward(x: Buffer, y: Buffer, tokens: number): void {
    backend.gram(x, this.gram, tokens, this.inputs);
    this.tokens += tokens;
    super.forward(x, y, tokens);
  }
}

/** Turns a row of white noise into one of covariance |H|^(1/n) H⁻¹: what error feedback leaves. */
type Shape = (white: Float64Array) => Float64Array;

/** The shape of each matrix's noise, by its name. The embedding's is white: its rows are looked up. */
async function noiseShapes(config: ModelConfig, tensors: Tensors, windows: readonly Int32Array[]) {
  const watched = new Map<string, WatchedLinear>();
  const weights = await loadWeights(backend, config, {
    linear: async ({ name, outputs, inputs }) => {
      const linear = new WatchedLinear(backend, outputs, inputs, tensors.get(`${name}.weight`)!);
      watched.set(name, linear);
      return linear;
    },
    vector: async (name) => tensors.get(name)!,
  });
  for (const ids of windows) {
    const session = new TransformerSession(backend, weights, ids.length);
    await session.forward(ids, { logits: "all" });
    session.free();
  }
  const shapes = new Map<string, Shape>();
  for (const [name, { gram, tokens, inputs: n }] of watched) {
    const h = Float64Array.from(await backend.read(gram), (x) => x / tokens);
    backend.free(gram);
    if (name === "model.embed_tokens") {
      shapes.set(name, (white) => white);
      continue;
    }
    let mean = 0;
    for (let i = 0; i < n; i++) mean += h[i * (n + 1)] / n;
    for (let i = 0; i < n; i++) h[i * (n + 1)] += 0.01 * mean;
    const l = cholesky(h, n);
    let logs = 0;
    for (let i = 0; i < n; i++) logs += Math.log(l[i * (n + 1)]);
    shapes.set(name, (white) => {
      const noise = new Float64Array(n);
      for (let i = n - 1; i >= 0; i--) {
        let sum = Math.exp(logs / n) * white[i];
        for (let k = i + 1; k < n; k++) sum -= noise[k] * l[k * n + i];
        noise[i] = sum / l[i * (n + 1)];
      }
      return noise;
    });
  }
  freeWeights(backend, weights);
  return shapes;
}

/** A copy of a matrix with noise on rows [first, end), `distortion` times each row's power. */
function disturbed(
  values: Float32Array,
  columns: number,
  [first, end]: readonly [number, number],
  distortion: number,
  shape: Shape,
  random: Random,
): Float32Array {
  const result = values.slice();
  for (let r = first; r < end; r++) {
    const row = result.subarray(r * columns, (r + 1) * columns);
    const power = row.reduce((sum, x) => sum + x * x, 0) / columns;
    const noise = shape(Float64Array.from(row, () => random.normal()));
    for (let i = 0; i < columns; i++) row[i] += Math.sqrt(distortion * power) * noise[i];
  }
  return result;
}

const tied = tinyConfig({ ...SHAPE, vocabularySize: 200 });
/** Embedding and head of two tiers, rows 0 .. 543 and 544 .. 1099. */
const untied = tinyConfig({ ...SHAPE, vocabularySize: 1100, layers: 1, tiedEmbeddings: false });

for (const [name, config] of Object.entries({ tied, untied })) {
  test(`${name}: sensitivity times distortion is the divergence that coding noise causes`, async () => {
    const tensors = gaussianTensors(config);
    const windows = randomWindows(64, config.vocabularySize);
    const checkpoint = checkpointOf(config, tensors);
    const sensitivities = (await measureSensitivities({ backend, checkpoint, windows, seed: 3 }))!;
    const shapes = await noiseShapes(config, tensors, windows);
    const some = windows.slice(0, 12);
    const clean = await predict(config, tensors, some);
    const random = new Random(4);
    const [distortion, draws] = [3e-3, 3];
    for (const { name: matrix, kind, rows, columns } of codedMatrices(config)) {
      const tiers = kind === "embedding" || kind === "head" ? tierRows(rows) : [[0, rows] as const];
      for (const [tier, range] of tiers.entries()) {
        let measured = 0;
        for (let draw = 0; draw < draws; draw++) {
          const weight = `${matrix}.weight`;
          const noisy = disturbed(
            tensors.get(weight)!,
            columns,
            range,
            distortion,
            shapes.get(matrix)!,
            random,
          );
          measured += divergence(clean, await predict(config, new Map(tensors).set(weight, noisy), some));
        }
        const ratio = measured / draws / (sensitivities[matrix].tiers[tier] * distortion);
        assert.ok(
          ratio > 0.75 && ratio < 1.3,
          `${matrix}, rows ${range}: ${ratio} times what its sensitivity says`,
        );
      }
    }
  });
}

const TINY: Readonly<Record<string, ModelConfig>> = {
  "llama, tied": tinyConfig(),
  "llama, untied, in tiers": tinyConfig({ vocabularySize: 1100, tiedEmbeddings: false }),
  "qwen2, tied, in tiers": tinyConfig({ architecture: "qwen2", vocabularySize: 1700, qkvBias: true }),
  qwen3: tinyConfig({ architecture: "qwen3", qkNorm: true, headSize: 12 }),
};

for (const [name, config] of Object.entries(TINY)) {
  test(`${name}: a number for each tier of each coded matrix, by seed and for any number of threads`, async () => {
    const checkpoint = checkpointOf(config, gaussianTensors(config));
    const windows = randomWindows(4, config.vocabularySize);
    const measure = async (on: WasmBackend, seed: number) => {
      const result = await measureSensitivities({ backend: on, checkpoint, windows, seed });
      assert.ok(result);
      return result;
    };
    const first = await measure(backends[0], 5);
    const matrices = codedMatrices(config);
    assert.deepEqual(Object.keys(first).sort(), matrices.map((matrix) => matrix.name).sort());
    for (const { name: matrix, kind, rows } of matrices) {
      const tiers = kind === "embedding" || kind === "head" ? tierRows(rows).length : 1;
      const { tiers: costs, rows: weights } = first[matrix];
      assert.equal(costs.length, tiers, matrix);
      for (const x of costs) assert.ok(Number.isFinite(x) && x > 0, `${matrix}: ${costs}`);
      assert.equal(weights?.length, kind === "q" || kind === "k" ? undefined : rows, matrix);
      assert.ok(weights === undefined || weights.every((x) => Number.isFinite(x) && x > 0), matrix);
    }
    for (const other of backends) assert.deepEqual(await measure(other, 5), first);
    assert.notDeepEqual(await measure(backend, 6), first);
    assert.deepEqual(JSON.parse(JSON.stringify(first)), first, "in the journal");
  });
}

test("rows that no token looks up cost nothing", async () => {
  const config = TINY["llama, untied, in tiers"];
  const checkpoint = checkpointOf(config, gaussianTensors(config));
  const windows = randomWindows(2, tierRows(1100)[0][1]);
  const measured = await measureSensitivities({ backend, checkpoint, windows, seed: 1 });
  assert.ok(measured!["model.embed_tokens"].tiers[0] > 0);
  assert.equal(measured!["model.embed_tokens"].tiers[1], 0);
  assert.ok(measured!["lm_head"].tiers[1] > 0);
});

test("the first 4096 tokens count", async () => {
  const config = tinyConfig({ layers: 1 });
  const checkpoint = checkpointOf(config, gaussianTensors(config));
  const windows = randomWindows(11, config.vocabularySize, 512);
  const measure = (part: readonly Int32Array[]) =>
    measureSensitivities({ backend, checkpoint, windows: part, seed: 1 });
  const eight = await measure(windows.slice(0, 8));
  assert.deepEqual(await measure(windows), eight);
  assert.notDeepEqual(await measure(windows.slice(0, 7)), eight);
});

test("a vocabulary too large for its gradient is not measured", async () => {
  const config = tinyConfig({ vocabularySize: 2 ** 22 + 1, hiddenSize: 32 });
  const windows = randomWindows(1, 100);
  const checkpoint = checkpointOf(config, new Map());
  assert.equal(await measureSensitivities({ backend, checkpoint, windows, seed: 1 }), null);
});

test("nothing stays allocated, whether it ends, is aborted or finds a tensor missing or too short", async () => {
  const config = tinyConfig({ tiedEmbeddings: false, qkvBias: true });
  const tensors = gaussianTensors(config);
  const windows = randomWindows(2, config.vocabularySize);
  const reported: string[] = [];
  const abort = new AbortController();
  const run = (from: Tensors, stopAt = -1): Promise<Sensitivities | null> =>
    measureSensitivities({
      ...{ backend, checkpoint: checkpointOf(config, from), windows, seed: 1, signal: abort.signal },
      onProgress: ({ stage, done, total }) => {
        reported.push(`${stage} ${done}/${total}`);
        if (done === stopAt) abort.abort(new InputError("interrupted"));
      },
    });
  // The first run grows working memory that the backend keeps.
  await run(tensors);
  assert.deepEqual(
    reported.slice(0, 4),
    [0, 1, 2, 3].map((i) => `measuring sensitivities ${i}/4`),
  );
  const before = backend.runtime.bytesInUse;
  await run(tensors);
  assert.equal(backend.runtime.bytesInUse, before);
  for (const missing of [
    "model.embed_tokens.weight",
    "model.layers.1.mlp.up_proj.weight",
    "model.layers.0.self_attn.k_proj.bias",
    "model.layers.0.input_layernorm.weight",
  ]) {
    const rest = new Map(tensors);
    rest.delete(missing);
    await assert.rejects(run(rest), new RegExp(missing));
    assert.equal(backend.runtime.bytesInUse, before, missing);
  }
  const short = new Map(tensors).set("model.layers.1.mlp.up_proj.weight", new Float32Array(8));
  await assert.rejects(run(short), RangeError);
  assert.equal(backend.runtime.bytesInUse, before, "a layer that was open");
  await assert.rejects(run(tensors, 2), { name: "InputError", message: "interrupted" });
  assert.equal(backend.runtime.bytesInUse, before);
});
