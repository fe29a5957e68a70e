/** Tiny models with seeded random weights, for tests. */
import type { ModelConfig } from "../checkpoint/config.js";
import { layerLinears } from "./weights.js";

/** A llama of 2 layers, 4 heads sharing 2 key/value heads; anything can be overridden. */
export function tinyConfig(overrides: Partial<ModelConfig> = {}): ModelConfig {
  return {
    architecture: "llama",
    vocabularySize: 61,
    hiddenSize: 32,
    intermediateSize: 44,
    layers: 2,
    heads: 4,
    kvHeads: 2,
    headSize: 8,
    contextLength: 700,
    ropeTheta: 10000,
    ropeScaling: null,
    rmsNormEpsilon: 1e-5,
    tiedEmbeddings: true,
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    qkNorm: false,
    slidingWindow: null,
    bosTokenId: null,
    eosTokenIds: [],
    ...overrides,
  };
}

/** Uniform numbers in [-1, 1): a linear congruential generator (Numerical Recipes' constants). */
export function randomUniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** The tensors of a model by Hugging Face name; sizes such that attention and logits are far from uniform. */
export function randomTensors(config: ModelConfig, seed = 1): Map<string, Float32Array> {
  const random = randomUniform(seed);
  const tensors = new Map<string, Float32Array>();
  const add = (name: string, length: number, scale: number, offset = 0) =>
    tensors.set(
      name,
      Float32Array.from({ length }, () => offset + scale * random()),
    );
  const { hiddenSize, vocabularySize, headSize } = config;
  add("model.embed_tokens.weight", vocabularySize * hiddenSize, 1);
  if (!config.tiedEmbeddings) add("lm_head.weight", vocabularySize * hiddenSize, 1);
  for (let layer = 0; layer < config.layers; layer++) {
    for (const { name, outputs, inputs, bias } of Object.values(layerLinears(config, layer))) {
      add(`${name}.weight`, outputs * inputs, 3 / Math.sqrt(inputs));
      if (bias) add(`${name}.bias`, outputs, 0.5);
    }
    const prefix = `model.layers.${layer}`;
    add(`${prefix}.input_layernorm.weight`, hiddenSize, 0.5, 1);
    add(`${prefix}.post_attention_layernorm.weight`, hiddenSize, 0.5, 1);
    if (config.qkNorm) {
      add(`${prefix}.self_attn.q_norm.weight`, headSize, 0.5, 1);
      add(`${prefix}.self_attn.k_norm.weight`, headSize, 0.5, 1);
    }
  }
  add("model.norm.weight", hiddenSize, 0.5, 1);
  return tensors;
}

/** What `loadDenseWeights` needs of a checkpoint, over tensors in memory. */
export function memoryCheckpoint(config: ModelConfig, tensors: ReadonlyMap<string, Float32Array>) {
  return {
    config,
    read: async (name: string): Promise<Float32Array> => {
      const tensor = tensors.get(name);
      if (!tensor) throw new Error(`no tensor ${name}`);
      return tensor;
    },
  };
}

/** `count` token ids below `vocabulary`. */
export function randomIds(count: number, vocabulary: number, seed = 7): Int32Array {
  const random = randomUniform(seed);
  return Int32Array.from({ length: count }, () => Math.floor(((random() + 1) / 2) * vocabulary));
}

/** The largest absolute difference of two arrays of one length. */
export function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let largest = 0;
  for (let i = 0; i < a.length; i++) largest = Math.max(largest, Math.abs(a[i] - b[i]));
  return largest;
}
