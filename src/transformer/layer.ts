/**
 * One decoder layer's forward pass, as its own function: sessions run all of a model's layers, the compress
 * pipeline loads, runs and drops one layer at a time and looks at the inputs of its matrices through `tap`.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import type { Rope } from "./rope.js";
import type { LayerWeights } from "./weights.js";
import type { LayerCache, Workspace } from "./workspace.js";

/** The matrices that share an input: q, k, v · o · gate, up · down. */
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
  /**
   * Called with the input x [tokens, inputs] of the matrices of a site before they are applied. The buffer
   * belongs to the workspace and is overwritten later in the layer: read or copy it before returning.
   */
  readonly tap?: ((site: TapSite, x: Buffer, tokens: number) => void) | undefined;
}

export function forwardLayer(
  backend: Backend,
  config: ModelConfig,
  layer: LayerWeights,
  workspace: Workspace,
  { hidden, cache, tokens, position, rope, tap }: ForwardLayerOptions,
): void {
  const { hiddenSize, heads, kvHeads, headSize, rmsNormEpsilon: epsilon } = config;
  const { normed, query, key, value, attended, projected, gate, up } = workspace;
  if (tokens > workspace.maxTokens)
    throw new RangeError(`${tokens} tokens for a workspace of ${workspace.maxTokens}`);

  backend.rmsNorm(hidden, layer.inputNorm, normed, tokens, hiddenSize, epsilon);
  tap?.("qkv", normed, tokens);
  layer.q.forward(normed, query, tokens);
  layer.k.forward(normed, key, tokens);
  layer.v.forward(normed, value, tokens);
  if (layer.qNorm) backend.rmsNorm(query, layer.qNorm, query, tokens * heads, headSize, epsilon);
  if (layer.kNorm) backend.rmsNorm(key, layer.kNorm, key, tokens * kvHeads, headSize, epsilon);
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
    window: config.slidingWindow,
  });
  tap?.("o", attended, tokens);
  layer.o.forward(attended, projected, tokens);
  backend.add(hidden, projected, tokens * hiddenSize);

  backend.rmsNorm(hidden, layer.postAttentionNorm, normed, tokens, hiddenSize, epsilon);
  tap?.("gateUp", normed, tokens);
  layer.gate.forward(normed, gate, tokens);
  layer.up.forward(normed, up, tokens);
  backend.siluMultiply(gate, up, tokens * config.intermediateSize);
  tap?.("down", gate, tokens);
  layer.down.forward(gate, projected, tokens);
  backend.add(hidden, projected, tokens * hiddenSize);
}
