/**
 * Gradients of one decoder layer. What the layer computed is computed again from its input (Chen et al. 2016,
 * arXiv 1604.06174), so a training step keeps one hidden state a layer and the activations of one layer of
 * one window: 34 kB a token for SmolLM2-135M.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import type { DenseLinear, LinearGradient } from "../compute/linear.js";
import type { TrainingBackend } from "../compute/training.js";
import type { BufferGroup } from "./buffers.js";
import { LayerSteps } from "./layer.js";
import type { Rope } from "./rope.js";
import type { LayerLinear, LayerWeights } from "./weights.js";
import { allocateCache, allocateWorkspace, type LayerCache, type Workspace } from "./workspace.js";

/** A layer that gradients can be taken of: its matrices are dense. */
export type TrainableLayer = Omit<LayerWeights, LayerLinear> & { readonly [K in LayerLinear]: DenseLinear };

/** Where a layer's gradients are added to; what is absent is not trained. */
export interface LayerGradient {
  readonly inputNorm?: Buffer | undefined;
  readonly qNorm?: Buffer | undefined;
  readonly kNorm?: Buffer | undefined;
  readonly postAttentionNorm?: Buffer | undefined;
  readonly linears?: { readonly [K in LayerLinear]?: LinearGradient | undefined } | undefined;
}

export interface LayerBackwardPass {
  readonly layer: TrainableLayer;
  readonly gradient: LayerGradient;
  /** [tokens, hiddenSize]: the layer's input. */
  readonly input: Buffer;
  /** [tokens, hiddenSize]: the layer's output; for a row factor of `down` only. */
  readonly output: Buffer;
  /** [tokens, hiddenSize]: the gradient of the layer's output, overwritten by that of its input. */
  readonly dHidden: Buffer;
  readonly tokens: number;
}

/** Runs layers backward; owns the activations of one window of at most `maxTokens` tokens. */
export class LayerBackward {
  readonly #backend: Backend;
  readonly #training: TrainingBackend;
  readonly #config: ModelConfig;
  readonly #rope: Rope;
  readonly #cache: LayerCache;
  readonly #workspace: Workspace;
  /** RMSNorm(input), kept while `workspace.normed` holds the second norm. */
  readonly #inputNormed: Buffer;
  /** The residual stream after attention. */
  readonly #middle: Buffer;
  /** Queries and keys before their norm (qwen3), as rows of headSize. */
  readonly #rawQuery: Buffer | undefined;
  readonly #rawKey: Buffer | undefined;
  readonly #gate: Buffer;
  readonly #dGate: Buffer;
  readonly #dNormed: Buffer;
  readonly #dQuery: Buffer;
  readonly #dKey: Buffer;
  readonly #dValue: Buffer;
  readonly #dAttended: Buffer;
  readonly #dActivated: Buffer;
  readonly #dRaw: Buffer | undefined;

  /** `group` owns the buffers; `rope` covers positions 0 .. maxTokens - 1. */
  constructor(
    backend: Backend,
    training: TrainingBackend,
    config: ModelConfig,
    group: BufferGroup,
    rope: Rope,
    maxTokens: number,
  ) {
    this.#backend = backend;
    this.#training = training;
    this.#config = config;
    this.#rope = rope;
    this.#cache = allocateCache(group, config, maxTokens);
    this.#workspace = allocateWorkspace(group, config, maxTokens);
    const { hiddenSize, heads, kvHeads, headSize, intermediateSize, qkNorm } = config;
    const rows = (columns: number) => group.allocate(maxTokens * columns);
    this.#inputNormed = rows(hiddenSize);
    this.#middle = rows(hiddenSize);
    this.#gate = rows(intermediateSize);
    this.#dGate = rows(intermediateSize);
    this.#dNormed = rows(hiddenSize);
    this.#dQuery = rows(heads * headSize);
    this.#dKey = rows(kvHeads * headSize);
    this.#dValue = rows(kvHeads * headSize);
    this.#dAttended = rows(heads * headSize);
    this.#dActivated = rows(intermediateSize);
    if (qkNorm) {
      this.#rawQuery = rows(heads * headSize);
      this.#rawKey = rows(kvHeads * headSize);
      this.#dRaw = rows(heads * headSize);
    }
  }

  /** Adds to the gradients in `gradient` and takes `dHidden` from the layer's output to its input. */
  run(pass: LayerBackwardPass): void {
    this.#recompute(pass);
    this.#feedForward(pass);
    this.#attention(pass);
  }

  /** The layer's activations again, as far as gradients need them: all but the last matrix. */
  #recompute({ layer, input, tokens }: LayerBackwardPass): void {
    const backend = this.#backend;
    const config = this.#config;
    const workspace = this.#workspace;
    const { hiddenSize, intermediateSize } = config;
    const steps = new LayerSteps(backend, config, workspace, tokens);
    backend.copy(input, 0, this.#middle, 0, tokens * hiddenSize);
    steps.normalise(input, layer.inputNorm);
    backend.copy(workspace.normed, 0, this.#inputNormed, 0, tokens * hiddenSize);
    if (this.#rawQuery && this.#rawKey) {
      layer.q.forward(workspace.normed, this.#rawQuery, tokens);
      layer.k.forward(workspace.normed, this.#rawKey, tokens);
    }
    steps.attend(layer, this.#cache, 0, this.#rope);
    steps.addProjected(layer.o, workspace.attended, this.#middle);
    steps.normalise(this.#middle, layer.postAttentionNorm);
    // silu(gate) * up overwrites the gate, which its gradient needs.
    layer.gate.forward(workspace.normed, this.#gate, tokens);
    layer.up.forward(workspace.normed, workspace.up, tokens);
    backend.copy(this.#gate, 0, workspace.gate, 0, tokens * intermediateSize);
    backend.siluMultiply(workspace.gate, workspace.up, tokens * intermediateSize);
  }

  #feedForward({ layer, gradient, output, dHidden, tokens }: LayerBackwardPass): void {
    const training = this.#training;
    const { hiddenSize: columns, intermediateSize, rmsNormEpsilon: epsilon } = this.#config;
    const { normed, gate: activated, up } = this.#workspace;
    const { linears } = gradient;
    const [dGate, dUp] = [this.#dGate, this.#dActivated];
    layer.down.backward(training, {
      x: activated,
      y: linears?.down?.rowFactor && this.#difference(output, this.#middle, tokens),
      dy: dHidden,
      dx: this.#dActivated,
      tokens,
      gradient: linears?.down,
    });
    training.siluMultiplyBackward({
      gate: this.#gate,
      up,
      dy: this.#dActivated,
      dGate,
      dUp,
      length: tokens * intermediateSize,
    });
    const input = { x: normed, dx: this.#dNormed, tokens };
    layer.gate.backward(training, { ...input, y: this.#gate, dy: dGate, gradient: linears?.gate });
    layer.up.backward(training, { ...input, y: up, dy: dUp, accumulate: true, gradient: linears?.up });
    training.rmsNormBackward({
      x: this.#middle,
      weight: layer.postAttentionNorm,
      dy: this.#dNormed,
      dx: dHidden,
      dWeight: gradient.postAttentionNorm,
      rows: tokens,
      columns,
      epsilon,
    });
  }

  #attention({ layer, gradient, input, dHidden, tokens }: LayerBackwardPass): void {
    const training = this.#training;
    const { hiddenSize, heads, kvHeads, headSize, rmsNormEpsilon: epsilon, slidingWindow } = this.#config;
    const { query, attended } = this.#workspace;
    const { linears } = gradient;
    layer.o.backward(training, {
      x: attended,
      y: linears?.o?.rowFactor && this.#difference(this.#middle, input, tokens),
      dy: dHidden,
      dx: this.#dAttended,
      tokens,
      gradient: linears?.o,
    });
    training.attentionBackward({
      query,
      keys: this.#cache.keys,
      values: this.#cache.values,
      y: attended,
      dy: this.#dAttended,
      dQuery: this.#dQuery,
      dKeys: this.#dKey,
      dValues: this.#dValue,
      tokens,
      heads,
      kvHeads,
      headSize,
      scale: 1 / Math.sqrt(headSize),
      window: slidingWindow,
    });
    const { keys, values } = this.#cache;
    const turn = { ...this.#rope, tokens, position: 0, headSize };
    training.ropeBackward({ ...turn, x: this.#dQuery, heads });
    training.ropeBackward({ ...turn, x: this.#dKey, heads: kvHeads });
    const dQuery = this.#headNorm(this.#rawQuery, layer.qNorm, gradient.qNorm, this.#dQuery, tokens * heads);
    const normed = { x: this.#inputNormed, dx: this.#dNormed, tokens };
    // What q and k gave is there turned only, unless a norm came between: it is turned back in place.
    if (linears?.q?.rowFactor && !this.#rawQuery) training.ropeBackward({ ...turn, x: query, heads });
    if (linears?.k?.rowFactor && !this.#rawKey) training.ropeBackward({ ...turn, x: keys, heads: kvHeads });
    layer.q.backward(training, { ...normed, y: this.#rawQuery ?? query, dy: dQuery, gradient: linears?.q });
    const dKey = this.#headNorm(this.#rawKey, layer.kNorm, gradient.kNorm, this.#dKey, tokens * kvHeads);
    const add = { ...normed, accumulate: true };
    layer.k.backward(training, { ...add, y: this.#rawKey ?? keys, dy: dKey, gradient: linears?.k });
    layer.v.backward(training, { ...add, y: values, dy: this.#dValue, gradient: linears?.v });
    training.rmsNormBackward({
      x: input,
      weight: layer.inputNorm,
      dy: this.#dNormed,
      dx: dHidden,
      dWeight: gradient.inputNorm,
      rows: tokens,
      columns: hiddenSize,
      epsilon,
    });
  }

  /** a - b [tokens, hiddenSize], in a buffer that the next call overwrites. */
  #difference(a: Buffer, b: Buffer, tokens: number): Buffer {
    const { projected } = this.#workspace;
    const length = tokens * this.#config.hiddenSize;
    this.#backend.copy(b, 0, projected, 0, length);
    this.#training.scale(projected, -1, length);
    this.#backend.add(projected, a, length);
    return projected;
  }

  /** Gradient before the norm over heads (qwen3) from that after it; the same buffer where there is no norm. */
  #headNorm(
    raw: Buffer | undefined,
    weight: Buffer | undefined,
    dWeight: Buffer | undefined,
    dy: Buffer,
    rows: number,
  ): Buffer {
    if (!raw || !weight || !this.#dRaw) return dy;
    const { headSize: columns, rmsNormEpsilon: epsilon } = this.#config;
    this.#training.zero(this.#dRaw, rows * columns);
    this.#training.rmsNormBackward({ x: raw, weight, dy, dx: this.#dRaw, dWeight, rows, columns, epsilon });
    return this.#dRaw;
  }
}
