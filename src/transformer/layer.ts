/**
 * One decoder layer's forward pass, whole and in steps: sessions run all of a model's layers, the compress
 * pipeline loads, runs and drops one at a time and looks at the inputs of its matrices between the steps.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import type { Linear } from "../compute/linear.js";
import { type AnyLayerCache, storeInCache } from "./kv-cache.js";
import type { Rope } from "./rope.js";
import type { LayerWeights } from "./weights.js";
import type { Workspace } from "./workspace.js";

/** Where inputs can be looked at: the matrices of a site share one: q, k, v · o · gate, up · down. */
export type TapSite = "qkv" | "o" | "gateUp" | "down";

export interface ForwardLayerOptions {
  /** [tokens, hiddenSize], the residual stream, updated in place. */
  readonly hidden: Buffer;
  /** Holds positions 0 .. position - 1; the new tokens' keys and values are appended. */
  readonly cache: AnyLayerCache;
  /** At most the workspace's maxTokens. */
  readonly tokens: number;
  /** Position of the first token. */
  readonly position: number;
  readonly rope: Rope;
  /** Of matrices: see `Linear.forward`. */
  readonly approximate?: boolean | undefined;
}

/** hidden = layer(hidden), new keys and values into the cache. RangeError for more tokens than the workspace holds. */
export function forwardLayer(
  backend: Backend,
  config: ModelConfig,
  layer: LayerWeights,
  workspace: Workspace,
  { hidden, cache, tokens, position, rope, approximate }: ForwardLayerOptions,
): void {
  const run = new LayerSteps(backend, config, workspace, tokens, approximate);
  run.normalise(hidden, layer.inputNorm);
  run.attend(layer, cache, position, rope);
  run.addProjected(layer.o, workspace.attended, hidden);
  run.normalise(hidden, layer.postAttentionNorm);
  run.activate(layer);
  run.addProjected(layer.down, workspace.gate, hidden);
}

/**
 * The steps of a layer between its matrices' inputs, each from workspace to workspace. Sequential
 * compression runs them one at a time, since a layer's matrices are coded between them.
 */
export class LayerSteps {
  constructor(
    readonly backend: Backend,
    readonly config: ModelConfig,
    readonly workspace: Workspace,
    readonly tokens: number,
    /** Of matrices: see `Linear.forward`. */
    readonly approximate = false,
  ) {
    if (tokens > workspace.maxTokens)
      throw new RangeError(`${tokens} tokens for a workspace of ${workspace.maxTokens}`);
  }

  /** normed = RMSNorm(hidden) */
  normalise(hidden: Buffer, norm: Buffer): void {
    const { hiddenSize, rmsNormEpsilon } = this.config;
    this.backend.rmsNorm(hidden, norm, this.workspace.normed, this.tokens, hiddenSize, rmsNormEpsilon);
  }

  /** Queries, keys and values of `normed`. */
  project(layer: Pick<LayerWeights, "q" | "k" | "v">): void {
    const { normed, query, key, value } = this.workspace;
    layer.q.forward(normed, query, this.tokens, this.approximate);
    layer.k.forward(normed, key, this.tokens, this.approximate);
    layer.v.forward(normed, value, this.tokens, this.approximate);
  }

  /** attended = attention over the cache of the queries, keys and values of `normed`. */
  attend(
    layer: Pick<LayerWeights, "q" | "k" | "v" | "qNorm" | "kNorm">,
    cache: AnyLayerCache,
    position: number,
    rope: Rope,
  ): void {
    const { tokens, workspace } = this;
    this.project(layer);
    attendOver(this.backend, this.config, layer, workspace, { tokens, cache, position, rope });
  }

  /** gate = silu(gate(normed)) * up(normed) */
  activate(layer: Pick<LayerWeights, "gate" | "up">): void {
    const { normed, gate, up } = this.workspace;
    layer.gate.forward(normed, gate, this.tokens, this.approximate);
    layer.up.forward(normed, up, this.tokens, this.approximate);
    this.backend.siluMultiply(gate, up, this.tokens * this.config.intermediateSize);
  }

  /** hidden += linear(x) */
  addProjected(linear: Linear, x: Buffer, hidden: Buffer): void {
    const { projected } = this.workspace;
    linear.forward(x, projected, this.tokens, this.approximate);
    this.backend.add(hidden, projected, this.tokens * this.config.hiddenSize);
  }
}

/** attended = attention over the cache of the workspace's queries, keys and values, which the cache takes over. */
export function attendOver(
  backend: Backend,
  config: ModelConfig,
  layer: Pick<LayerWeights, "qNorm" | "kNorm">,
  workspace: Workspace,
  { tokens, cache, position, rope }: Omit<ForwardLayerOptions, "hidden" | "approximate">,
): void {
  turnHeads(backend, config, layer, workspace, { tokens, position, rope });
  attendCached(backend, config, workspace, { tokens, cache, position });
}

/** Queries and keys normalised, where the architecture does that, and turned by the rows of `rope` from `position` on. */
export function turnHeads(
  backend: Backend,
  config: ModelConfig,
  layer: Pick<LayerWeights, "qNorm" | "kNorm">,
  { query, key }: Pick<Workspace, "query" | "key">,
  { tokens, position, rope }: Pick<ForwardLayerOptions, "tokens" | "position" | "rope">,
): void {
  const { heads, kvHeads, headSize, rmsNormEpsilon: epsilon } = config;
  if (layer.qNorm) backend.rmsNorm(query, layer.qNorm, query, tokens * heads, headSize, epsilon);
  if (layer.kNorm) backend.rmsNorm(key, layer.kNorm, key, tokens * kvHeads, headSize, epsilon);
  const { cosines, sines } = rope;
  backend.rope({ x: query, cosines, sines, tokens, position, heads, headSize });
  backend.rope({ x: key, cosines, sines, tokens, position, heads: kvHeads, headSize });
}

type Attending = Pick<Workspace, "query" | "key" | "value" | "attended">;

/** The same of queries and keys that are normalised and turned by their positions. */
function attendCached(
  backend: Backend,
  config: ModelConfig,
  workspace: Attending,
  { tokens, cache, position }: Pick<ForwardLayerOptions, "tokens" | "cache" | "position">,
): void {
  if (tokens === 1) {
    attendEach(backend, config, workspace, [{ cache, position }]);
    return;
  }
  const { query, key, value, attended } = workspace;
  storeInCache(backend, config, cache, { key, value }, position, tokens);
  backend.attention({ query, ...stored(cache), y: attended, tokens, position, ...shapeOf(config) });
}

/** One token of each sequence, a row of the workspace, over the sequence's own cache, which takes its key and value over. */
export function attendEach(
  backend: Backend,
  config: ModelConfig,
  { query, key, value, attended }: Attending,
  sequences: readonly Pick<ForwardLayerOptions, "cache" | "position">[],
): void {
  const caches = sequences.map(({ cache, position }) => ({ ...stored(cache), position }));
  backend.attendEach({ query, key, value, y: attended, sequences: caches, ...shapeOf(config) });
}

function stored({ format, keys, values }: AnyLayerCache) {
  return { keys, values, packed: format === "f32" ? undefined : format };
}

function shapeOf({ heads, kvHeads, headSize, slidingWindow: window }: ModelConfig) {
  return { heads, kvHeads, headSize, scale: 1 / Math.sqrt(headSize), window };
}
