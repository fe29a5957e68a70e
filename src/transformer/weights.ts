/**
 * The weights of a model on a backend, and how they are put together: which matrices and vectors a Llama-
 * family model has under which Hugging Face names, read one by one from any `WeightSource`. The dense source
 * (an opened checkpoint) is here; the coded one is the container's affair.
 */
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import { DenseLinear, type Linear } from "../compute/linear.js";
import { upload } from "../compute/upload.js";
import { throwIfAborted } from "../errors.js";
import type { OnProgress } from "../progress.js";

export interface LayerWeights {
  /** [hiddenSize], RMSNorm before attention. */
  readonly inputNorm: Buffer;
  readonly q: Linear;
  readonly k: Linear;
  readonly v: Linear;
  readonly o: Linear;
  /** [headSize], RMSNorm over each head (qwen3 only). */
  readonly qNorm?: Buffer;
  readonly kNorm?: Buffer;
  /** [hiddenSize], RMSNorm before the feed-forward part. */
  readonly postAttentionNorm: Buffer;
  readonly gate: Linear;
  readonly up: Linear;
  readonly down: Linear;
}

export interface ModelWeights {
  readonly config: ModelConfig;
  /** [vocabularySize, hiddenSize]; only its `gather` is used. */
  readonly embedding: Linear;
  readonly layers: readonly LayerWeights[];
  readonly finalNorm: Buffer;
  /** [vocabularySize, hiddenSize]; the same object as `embedding` where embeddings are tied. */
  readonly head: Linear;
}

export const LAYER_LINEARS = ["q", "k", "v", "o", "gate", "up", "down"] as const;
export type LayerLinear = (typeof LAYER_LINEARS)[number];

/** What one matrix is: its tensor is `<name>.weight` [outputs, inputs], its bias `<name>.bias` [outputs]. */
export interface LinearSpec {
  readonly name: string;
  readonly outputs: number;
  readonly inputs: number;
  readonly bias: boolean;
}

export const EMBEDDING_NAME = "model.embed_tokens";
export const HEAD_NAME = "lm_head";

/** The seven matrices of decoder layer `index`. */
export function layerLinears(config: ModelConfig, index: number): Record<LayerLinear, LinearSpec> {
  const {
    hiddenSize: hidden,
    intermediateSize: intermediate,
    headSize,
    qkvBias,
    outputBias,
    mlpBias,
  } = config;
  const queries = config.heads * headSize;
  const keys = config.kvHeads * headSize;
  const spec = (part: string, outputs: number, inputs: number, bias: boolean): LinearSpec => ({
    name: `model.layers.${index}.${part}_proj`,
    outputs,
    inputs,
    bias,
  });
  return {
    q: spec("self_attn.q", queries, hidden, qkvBias),
    k: spec("self_attn.k", keys, hidden, qkvBias),
    v: spec("self_attn.v", keys, hidden, qkvBias),
    o: spec("self_attn.o", hidden, queries, outputBias),
    gate: spec("mlp.gate", intermediate, hidden, mlpBias),
    up: spec("mlp.up", intermediate, hidden, mlpBias),
    down: spec("mlp.down", hidden, intermediate, mlpBias),
  };
}

/** Weights of the matrices of one decoder layer. */
export function layerFloats(config: ModelConfig): number {
  return Object.values(layerLinears(config, 0)).reduce(
    (sum, { outputs, inputs }) => sum + outputs * inputs,
    0,
  );
}

/** Weights of the embedding, and of a head of its own. */
export function wholeFloats({ vocabularySize, hiddenSize, tiedEmbeddings }: ModelConfig): number {
  return vocabularySize * hiddenSize * (tiedEmbeddings ? 1 : 2);
}

/** The tensors of the norms of decoder layer `index`, those over heads only where there are any. */
export function layerNorms(
  config: ModelConfig,
  index: number,
): Record<"inputNorm" | "postAttentionNorm", string> & { qNorm?: string; kNorm?: string } {
  const name = (part: string) => `model.layers.${index}.${part}.weight`;
  return {
    inputNorm: name("input_layernorm"),
    postAttentionNorm: name("post_attention_layernorm"),
    ...(config.qkNorm && { qNorm: name("self_attn.q_norm"), kNorm: name("self_attn.k_norm") }),
  };
}

/** Where weights come from. Both calls read one tensor (and its bias) and keep nothing else in memory. */
export interface WeightSource {
  linear(spec: LinearSpec): Promise<Linear>;
  /** The tensor of this name as f32: norms. */
  vector(name: string): Promise<Float32Array>;
}

export interface LoadOptions {
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** f32 Linears from an opened checkpoint. */
export function denseSource(backend: Backend, checkpoint: Pick<Checkpoint, "read">): WeightSource {
  return {
    async linear({ name, outputs, inputs, bias }) {
      const weight = await checkpoint.read(`${name}.weight`);
      return new DenseLinear(
        backend,
        outputs,
        inputs,
        weight,
        bias ? await checkpoint.read(`${name}.bias`) : undefined,
      );
    },
    vector: (name) => checkpoint.read(name),
  };
}

/** Loads every weight as f32, tensor by tensor. When it fails or is aborted nothing stays allocated. */
export function loadDenseWeights(
  backend: Backend,
  checkpoint: Pick<Checkpoint, "read" | "config">,
  options: LoadOptions = {},
): Promise<ModelWeights> {
  return loadWeights(backend, checkpoint.config, denseSource(backend, checkpoint), options);
}

/** Loads the weights of a model from `source`. When it fails or is aborted nothing stays allocated. */
export async function loadWeights(
  backend: Backend,
  config: ModelConfig,
  source: WeightSource,
  { signal, onProgress }: LoadOptions = {},
): Promise<ModelWeights> {
  const owned = new Owned(backend, source);
  try {
    const total = config.layers + 1;
    const step = (done: number) => {
      throwIfAborted(signal);
      onProgress?.({ stage: "loading weights", done, total });
    };
    step(0);
    const matrix = (name: string): LinearSpec => ({
      name,
      outputs: config.vocabularySize,
      inputs: config.hiddenSize,
      bias: false,
    });
    // In the order of the folder's files, which may be arriving.
    const embedding = await owned.linear(matrix(EMBEDDING_NAME));
    const layers: LayerWeights[] = [];
    for (let index = 0; index < config.layers; index++) {
      step(index + 1);
      layers.push(await readLayer(owned, config, index));
    }
    const finalNorm = await owned.vector("model.norm.weight");
    const head = config.tiedEmbeddings ? embedding : await owned.linear(matrix(HEAD_NAME));
    step(total);
    return { config, embedding, layers, finalNorm, head };
  } catch (error) {
    owned.free();
    throw error;
  }
}

/** Loads one decoder layer; for programs that go through a model layer by layer. */
export async function loadLayer(
  backend: Backend,
  config: ModelConfig,
  source: WeightSource,
  index: number,
): Promise<LayerWeights> {
  const owned = new Owned(backend, source);
  try {
    return await readLayer(owned, config, index);
  } catch (error) {
    owned.free();
    throw error;
  }
}

async function readLayer(source: Owned, config: ModelConfig, index: number): Promise<LayerWeights> {
  const specs = layerLinears(config, index);
  const norms = layerNorms(config, index);
  return {
    inputNorm: await source.vector(norms.inputNorm),
    q: await source.linear(specs.q),
    k: await source.linear(specs.k),
    v: await source.linear(specs.v),
    ...(norms.qNorm && { qNorm: await source.vector(norms.qNorm) }),
    ...(norms.kNorm && { kNorm: await source.vector(norms.kNorm) }),
    o: await source.linear(specs.o),
    postAttentionNorm: await source.vector(norms.postAttentionNorm),
    gate: await source.linear(specs.gate),
    up: await source.linear(specs.up),
    down: await source.linear(specs.down),
  };
}

/** Frees one layer of `loadLayer`. */
export function freeLayer(backend: Backend, layer: LayerWeights): void {
  for (const linear of linearsOf(layer)) linear.free();
  for (const norm of normsOf(layer)) backend.free(norm);
}

/** Frees everything of `loadWeights`. */
export function freeWeights(backend: Backend, weights: ModelWeights): void {
  for (const layer of weights.layers) freeLayer(backend, layer);
  backend.free(weights.finalNorm);
  weights.embedding.free();
  if (weights.head !== weights.embedding) weights.head.free();
}

/** Bytes of memory that the weights hold, norms and biases included; a shared matrix counts once. */
export function weightBytes(weights: ModelWeights): number {
  const linears = new Set([weights.embedding, weights.head, ...weights.layers.flatMap(linearsOf)]);
  const norms = [weights.finalNorm, ...weights.layers.flatMap(normsOf)];
  let bytes = 0;
  for (const linear of linears) bytes += linear.bytes;
  for (const norm of norms) bytes += 4 * norm.length;
  return bytes;
}

function linearsOf(layer: LayerWeights): Linear[] {
  return LAYER_LINEARS.map((kind) => layer[kind]);
}

function normsOf({ inputNorm, qNorm, kNorm, postAttentionNorm }: LayerWeights): Buffer[] {
  return [inputNorm, qNorm, kNorm, postAttentionNorm].filter((norm) => norm !== undefined);
}

/** Remembers what it has put on the backend, so that a load that fails half way leaves nothing behind. */
class Owned {
  readonly #linears: Linear[] = [];
  readonly #vectors: Buffer[] = [];

  constructor(
    readonly backend: Backend,
    readonly source: WeightSource,
  ) {}

  async linear(spec: LinearSpec): Promise<Linear> {
    const linear = await this.source.linear(spec);
    this.#linears.push(linear);
    return linear;
  }

  async vector(name: string): Promise<Buffer> {
    const data = await this.source.vector(name);
    const buffer = upload(this.backend, data);
    this.#vectors.push(buffer);
    return buffer;
  }

  free(): void {
    for (const linear of this.#linears) linear.free();
    for (const vector of this.#vectors) this.backend.free(vector);
  }
}
