/**
 * One decoder layer's forward pass, whole and in steps: sessions run all of a model's layers, the compress
 * pipeline loads, runs and drops one at a time and looks at the inputs of its matrices between the steps.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import type { Linear } from "../compute/linear.js";
import type { Rope } from "./rope.js";
import type { LayerWeights } from "./weights.js";
import type { LayerCache, Workspace } from "./workspace.js";

/** Where inputs can be looked at: the matrices of a site share one: q, k, v · o · gate, up · down. */
export type TapSite = "qkv" | "o" | "gateUp" | "down";

export interface ForwardLayerOptions {
  /** [tokens, hiddenSize], the residual stream, updated in place. */
  readonly hidden: Buffer;
  /** Holds positions 0 .. position - 1; the new tokens' keys and values are appended. */
  readonly cache: LayerCache;
  /** At most the workspace's maxTokens. */
  readonly tokens: number;
  /** Position of the first token. */
  readonly position: number;
  readonly rope: Rope;
}

/** hidden = layer(hidden), new keys and values into the cache. RangeError for more tokens than the workspace holds. */
export function forwardLayer(
  backend: Backend,
  config: ModelConfig,
  layer: LayerWeights,
  workspace: Workspace,
  { hidden, cache, tokens, position, rope }: ForwardLayerOptions,
): void {
  const run = new LayerSteps(backend, config, workspace, tokens);
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
  ) {
    if (tokens > workspace.maxTokens)
      throw new RangeError(`${tokens} tokens for a workspace of ${workspace.maxTokens}`);
  }

  /** normed = RMSNorm(hidden) */
  normalise(hidden: Buffer, norm: Buffer): void {
    const { hiddenSize, rmsNormEpsilon } = this.config;
    this.backend.rmsNorm(hidden, norm, this.workspace.normed, this.tokens, hiddenSize, rmsNormEpsilon);
  }

  /** Queries, keys and values of `normed`, not yet turned by their positions. */
  project(layer: Pick<LayerWeights, "q" | "k" | "v" | "qNorm" | "kNorm">): void {
    const { backend, tokens } = this;
    const { heads, kvHeads, headSize, rmsNormEpsilon: epsilon } = this.config;
    const { normed, query, key, value } = this.workspace;
    layer.q.forward(normed, query, tokens);
    layer.k.forward(normed, key, tokens);
    layer.v.forward(normed, value, tokens);
    if (layer.qNorm) backend.rmsNorm(query, layer.qNorm, query, tokens * heads, headSize, epsilon);
    if (layer.kNorm) backend.rmsNorm(key, layer.kNorm, key, tokens * kvHeads, headSize, epsilon);
  }

  /** attended = attention over the cache of the queries, keys and values of `normed`. */
  attend(
    layer: Pick<LayerWeights, "q" | "k" | "v" | "qNorm" | "kNorm">,
    cache: LayerCache,
    position: number,
    rope: Rope,
  ): void {
    const { backend, tokens } = this;
    const { heads, kvHeads, headSize } = this.config;
    const { query, key, value, attended } = this.workspace;
    this.project(layer);
    const turn = { ...rope, tokens, position, headSize };
    backend.rope({ ...turn, x: query, heads });
    backend.rope({ ...turn, x: key, heads: kvHeads });
    const keyColumns = kvHeads * headSize;
    backend.copy(key, 0, cache.keys, position * keyColumns, tokens * keyColumns);
    backend.copy(value, 0, cache.values, position * keyColumns, tokens * keyColumns);
    backend.attention({
      query,
      keys: cache.keys,
      values: cache.values,
      y: attended,
      tokens,
      position,
      heads,
      kvHeads,
      headSize,
      scale: 1 / Math.sqrt(headSize),
      window: this.config.slidingWindow,
    });
  }

  /** gate = silu(gate(normed)) * up(normed) */
  activate(layer: Pick<LayerWeights, "gate" | "up">): void {
    const { normed, gate, up } = this.workspace;
    layer.gate.forward(normed, gate, this.tokens);
    layer.up.forward(normed, up, this.tokens);
    this.backend.siluMultiply(gate, up, this.tokens * this.config.intermediateSize);
  }

  /** hidden += linear(x) */
  addProjected(linear: Linear, x: Buffer, hidden: Buffer): void {
    const { projected } = this.workspace;
    linear.forward(x, projected, this.tokens);
    this.backend.add(hidden, projected, this.tokens * this.config.hiddenSize);
  }
}
