/** Every variation of the architecture against a forward pass written plainly in float64, without a cache. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { ModelConfig } from "../checkpoint/config.js";
import { ReferenceBackend } from "../compute/reference/backend.js";
import { TransformerSession } from "./session.js";
import {
  largestDifference,
  memoryCheckpoint,
  randomIds,
  randomTensors,
  tinyConfig,
} from "./tiny-model.test.util.js";
import { loadDenseWeights } from "./weights.js";

type Vector = number[];

/** Logits of every position, as the papers and model cards define them. */
function plainForward(
  config: ModelConfig,
  tensors: ReadonlyMap<string, Float32Array>,
  ids: Int32Array,
): Vector[] {
  const { headSize: d, heads, kvHeads } = config;
  const tensor = (name: string): Float32Array => tensors.get(name)!;
  const linear = (x: Vector, name: string): Vector => {
    const w = tensor(`${name}.weight`);
    const bias = tensors.get(`${name}.bias`);
    return Array.from({ length: w.length / x.length }, (_, row) =>
      x.reduce((sum, value, i) => sum + value * w[row * x.length + i], bias ? bias[row] : 0),
    );
  };
  const norm = (x: Vector, name: string): Vector => {
    const rms = Math.sqrt(x.reduce((s, v) => s + v * v, 0) / x.length + config.rmsNormEpsilon);
    return x.map((v, i) => (v / rms) * tensor(name)[i]);
  };
  const heads_ = (x: Vector): Vector[] =>
    Array.from({ length: x.length / d }, (_, h) => x.slice(h * d, (h + 1) * d));
  // Pair (i, i + d/2) is a complex number that turns by position * theta^(-2i/d), scaled.
  const turn = (x: Vector, position: number): Vector => {
    const y = [...x];
    for (let i = 0; i < d / 2; i++) {
      const angle = position * scaledFrequency(config, config.ropeTheta ** ((-2 * i) / d));
      y[i] = x[i] * Math.cos(angle) - x[i + d / 2] * Math.sin(angle);
      y[i + d / 2] = x[i + d / 2] * Math.cos(angle) + x[i] * Math.sin(angle);
    }
    return y;
  };
  const plus = (a: Vector, b: Vector): Vector => a.map((v, i) => v + b[i]);

  let stream = Array.from(
    ids,
    (id): Vector =>
      Array.from(
        tensor("model.embed_tokens.weight").subarray(id * config.hiddenSize, (id + 1) * config.hiddenSize),
      ),
  );
  for (let l = 0; l < config.layers; l++) {
    const p = `model.layers.${l}`;
    const normed = stream.map((x) => norm(x, `${p}.input_layernorm.weight`));
    const project = (part: "q" | "k"): Vector[][] =>
      normed.map((x, t) =>
        heads_(linear(x, `${p}.self_attn.${part}_proj`)).map((h) =>
          turn(config.qkNorm ? norm(h, `${p}.self_attn.${part}_norm.weight`) : h, t),
        ),
      );
    const q = project("q");
    const k = project("k");
    const v = normed.map((x) => heads_(linear(x, `${p}.self_attn.v_proj`)));
    stream = stream.map((x, t) => {
      const attended: Vector = [];
      for (let h = 0; h < heads; h++) {
        const shared = Math.floor((h * kvHeads) / heads);
        const weights: number[] = [];
        for (let s = 0; s <= t; s++) {
          const visible = config.slidingWindow === null || t - s < config.slidingWindow;
          const score = q[t][h].reduce((sum, value, i) => sum + value * k[s][shared][i], 0);
          weights.push(visible ? Math.exp(score / Math.sqrt(d)) : 0);
        }
        const total = weights.reduce((a, b) => a + b);
        for (let i = 0; i < d; i++)
          attended.push(weights.reduce((sum, w, s) => sum + (w / total) * v[s][shared][i], 0));
      }
      return plus(x, linear(attended, `${p}.self_attn.o_proj`));
    });
    stream = stream.map((x) => {
      const y = norm(x, `${p}.post_attention_layernorm.weight`);
      const up = linear(y, `${p}.mlp.up_proj`);
      const inner = linear(y, `${p}.mlp.gate_proj`).map((g, i) => (g / (1 + Math.exp(-g))) * up[i]);
      return plus(x, linear(inner, `${p}.mlp.down_proj`));
    });
  }
  const head = config.tiedEmbeddings ? "model.embed_tokens" : "lm_head";
  return stream.map((x) => linear(norm(x, "model.norm.weight"), head));
}

function scaledFrequency({ ropeScaling: s }: ModelConfig, f: number): number {
  if (s === null) return f;
  if (s.type === "linear") return f / s.factor;
  const wavelength = (2 * Math.PI) / f;
  if (wavelength < s.originalContextLength / s.highFrequencyFactor) return f;
  if (wavelength > s.originalContextLength / s.lowFrequencyFactor) return f / s.factor;
  const smooth =
    (s.originalContextLength / wavelength - s.lowFrequencyFactor) /
    (s.highFrequencyFactor - s.lowFrequencyFactor);
  return ((1 - smooth) * f) / s.factor + smooth * f;
}

const VARIATIONS: Record<string, Partial<ModelConfig>> = {
  "llama, grouped key/value heads, tied head": {},
  "llama, one key/value head a head, own head": { kvHeads: 4, tiedEmbeddings: false },
  "llama, biases everywhere": { qkvBias: true, outputBias: true, mlpBias: true },
  "llama, linear rope scaling": { ropeScaling: { type: "linear", factor: 3 } },
  "llama, llama3 rope scaling": {
    ropeScaling: {
      type: "llama3",
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalContextLength: 128,
    },
  },
  "mistral, sliding window": { architecture: "mistral", slidingWindow: 5, tiedEmbeddings: false },
  "qwen2, bias of q, k, v": { architecture: "qwen2", qkvBias: true, ropeTheta: 1e6 },
  "qwen3, norms of q and k, heads wider than the hidden size": {
    architecture: "qwen3",
    qkNorm: true,
    headSize: 12,
    kvHeads: 1,
  },
};

for (const [name, overrides] of Object.entries(VARIATIONS))
  test(`${name}: logits equal a plain float64 forward`, async () => {
    const config = tinyConfig(overrides);
    const tensors = randomTensors(config);
    const ids = randomIds(23, config.vocabularySize);
    const expected = plainForward(config, tensors, ids);
    const backend = new ReferenceBackend();
    const weights = await loadDenseWeights(backend, memoryCheckpoint(config, tensors));
    const session = new TransformerSession(backend, weights, 32);
    const logits = await session.forward(ids, { logits: "all" });
    const spread = Math.max(...expected.flat()) - Math.min(...expected.flat());
    assert.ok(spread > 10, `logits spread over ${spread} only: the comparison says little`);
    const difference = largestDifference(logits, expected.flat());
    assert.ok(difference < 2e-4, `logits differ by ${difference}`);
    await backend.close();
  });

test("the sliding window and each scaling change the result: the comparisons above are not vacuous", async () => {
  const config = tinyConfig();
  const tensors = randomTensors(config);
  const ids = randomIds(23, config.vocabularySize);
  const plain = plainForward(config, tensors, ids).flat();
  for (const name of ["llama, linear rope scaling", "llama, llama3 rope scaling"]) {
    const scaled = plainForward({ ...config, ...VARIATIONS[name] }, tensors, ids).flat();
    assert.ok(largestDifference(plain, scaled) > 0.1, name);
  }
  const windowed = plainForward({ ...config, slidingWindow: 5 }, tensors, ids).flat();
  assert.ok(largestDifference(plain, windowed) > 0.1);
});
