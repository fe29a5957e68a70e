/**
 * Gradients of one decoder layer from its activations. Where there is room they are kept from the forward pass;
 * else they are computed again from the layer's input (Chen et al. 2016, arXiv 1604.06174), and a training step
 * keeps one hidden state a layer and the activations of one layer of one window: 34 kB a token for SmolLM2-135M.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import { difference } from "../compute/difference.js";
import type { LinearGradient, TrainableLinear } from "../compute/linear.js";
import type { TrainingBackend } from "../compute/training.js";
import type { BufferGroup } from "./buffers.js";
import { allocateCache, type LayerCache } from "./kv-cache.js";
import { LayerSteps } from "./layer.js";
import type { Rope } from "./rope.js";
import type { LayerLinear, LayerWeights } from "./weights.js";
import type { Workspace } from "./workspace.js";

/** A layer that gradients can be taken of. */
export type TrainableLayer = Omit<LayerWeights, LayerLinear> & {
  readonly [K in LayerLinear]: TrainableLinear;
};

/** Where a layer's gradients are added to; what is absent is not trained. */
export interface LayerGradient {
  readonly inputNorm?: Buffer | undefined;
  readonly qNorm?: Buffer | undefined;
  readonly kNorm?: Buffer | undefined;
  readonly postAttentionNorm?: Buffer | undefined;
  readonly linears?: { readonly [K in LayerLinear]?: LinearGradient | undefined } | undefined;
}

/** What one layer computed for one window, as far as gradients need it: all but the last matrix's output. */
export interface LayerActivations {
  /** RMSNorm(input); `workspace.normed` holds the second norm. */
  readonly inputNormed: Buffer;
  /** The residual stream after attention. */
  readonly middle: Buffer;
  /** Before the activation; `workspace.gate` holds silu(gate) * up. */
  readonly gate: Buffer;
  /** Queries and keys before their norm (qwen3), as rows of headSize. */
  readonly rawQuery: Buffer | undefined;
  readonly rawKey: Buffer | undefined;
  readonly workspace: Workspace;
  readonly cache: LayerCache;
}

/** Floats a token of what `allocateActivations` allocates. */
export function activationFloats(config: ModelConfig): number {
  const { hiddenSize, heads, kvHeads, headSize, intermediateSize, qkNorm } = config;
  const [queries, keys] = [heads * headSize, kvHeads * headSize];
  return 3 * hiddenSize + 2 * queries + 2 * keys + 3 * intermediateSize + (qkNorm ? queries + keys : 0);
}

export interface LayerForwardPass {
  readonly layer: TrainableLayer;
  /** [tokens, hiddenSize]: the layer's input. */
  readonly input: Buffer;
  readonly activations: LayerActivations;
  readonly tokens: number;
}

export interface LayerBackwardPass extends LayerForwardPass {
  readonly gradient: LayerGradient;
  /** [tokens, hiddenSize]: the layer's output; for a row factor of `down` only. */
  readonly output: Buffer;
  /** [tokens, hiddenSize]: the gradient of the layer's output, overwritten by that of its input. */
  readonly dHidden: Buffer;
}

/** Runs layers for their gradients: forward for the activations, and backward. */
export class LayerBackward {
  readonly #backend: Backend;
  readonly #training: TrainingBackend;
  readonly #config: ModelConfig;
  readonly #rope: Rope;
  readonly #group: BufferGroup;
  readonly #maxTokens: number;
  /** Shared by all activations: what does not outlive a step of a layer. */
  readonly #scratch: Pick<Workspace, "key" | "value" | "projected">;
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
    this.#group = group;
    this.#maxTokens = maxTokens;
    const { hiddenSize, heads, kvHeads, headSize, intermediateSize, qkNorm } = config;
    const rows = (columns: number) => group.allocate(maxTokens * columns);
    const keys = kvHeads * headSize;
    this.#scratch = { key: rows(keys), value: rows(keys), projected: rows(hiddenSize) };
    this.#dGate = rows(intermediateSize);
    this.#dNormed = rows(hiddenSize);
    this.#dQuery = rows(heads * headSize);
    this.#dKey = rows(kvHeads * headSize);
    this.#dValue = rows(kvHeads * headSize);
    this.#dAttended = rows(heads * headSize);
    this.#dActivated = rows(intermediateSize);
    if (qkNorm) this.#dRaw = rows(heads * headSize);
  }

  /** Room for the activations of one layer of one window. */
  allocateActivations(): LayerActivations {
    const { hiddenSize, heads, kvHeads, headSize, intermediateSize, qkNorm } = this.#config;
    const rows = (columns: number) => this.#group.allocate(this.#maxTokens * columns);
    const [queries, keys] = [heads * headSize, kvHeads * headSize];
    return {
      inputNormed: rows(hiddenSize),
      middle: rows(hiddenSize),
      gate: rows(intermediateSize),
      rawQuery: qkNorm ? rows(queries) : undefined,
      rawKey: qkNorm ? rows(keys) : undefined,
      workspace: {
        ...this.#scratch,
        maxTokens: this.#maxTokens,
        normed: rows(hiddenSize),
        query: rows(queries),
        attended: rows(queries),
        gate: rows(intermediateSize),
        up: rows(intermediateSize),
      },
      cache: allocateCache(this.#group, this.#config, this.#maxTokens),
    };
  }

  /** The layer's activations, without its output. */
  compute({ layer, input, activations, tokens }: LayerForwardPass): void {
    const backend = this.#backend;
    const { workspace, inputNormed, middle, rawQuery, rawKey, gate, cache } = activations;
    const { hiddenSize, intermediateSize } = this.#config;
    const steps = new LayerSteps(backend, this.#config, workspace, tokens);
    backend.copy(input, 0, middle, 0, tokens * hiddenSize);
    steps.normalise(input, layer.inputNorm);
    backend.copy(workspace.normed, 0, inputNormed, 0, tokens * hiddenSize);
    if (rawQuery && rawKey) {
      layer.q.forward(workspace.normed, rawQuery, tokens);
      layer.k.forward(workspace.normed, rawKey, tokens);
    }
    steps.attend(layer, cache, 0, this.#rope);
    steps.addProjected(layer.o, workspace.attended, middle);
    steps.normalise(middle, layer.postAttentionNorm);
    // silu(gate) * up overwrites the gate, which its gradient needs.
    layer.gate.forward(workspace.normed, gate, tokens);
    layer.up.forward(workspace.normed, workspace.up, tokens);
    backend.copy(gate, 0, workspace.gate, 0, tokens * intermediateSize);
    backend.siluMultiply(workspace.gate, workspace.up, tokens * intermediateSize);
  }

  /** After `compute`: the layer's output into `output` [tokens, hiddenSize]. */
  finish({ layer, activations: { workspace, middle }, tokens }: LayerForwardPass, output: Buffer): void {
    this.#backend.copy(middle, 0, output, 0, tokens * this.#config.hiddenSize);
    const steps = new LayerSteps(this.#backend, this.#config, workspace, tokens);
    steps.addProjected(layer.down, workspace.gate, output);
  }

  /**
   * After `compute`, whose activations it may overwrite: adds to the gradients in `gradient` and takes `dHidden`
   * from the layer's output to its input.
   */
  run(pass: LayerBackwardPass): void {
    this.#feedForward(pass);
    this.#attention(pass);
  }

  #feedForward({ layer, activations, gradient, output, dHidden, tokens }: LayerBackwardPass): void {
    const training = this.#training;
    const { hiddenSize: columns, intermediateSize, rmsNormEpsilon: epsilon } = this.#config;
    const { middle, gate, workspace } = activations;
    const { normed, gate: activated, up } = workspace;
    const { linears } = gradient;
    const [dGate, dUp] = [this.#dGate, this.#dActivated];
    layer.down.backward(training, {
      x: activated,
      y: linears?.down?.rowFactor && this.#difference(output, middle, tokens),
      dy: dHidden,
      dx: this.#dActivated,
      tokens,
      gradient: linears?.down,
    });
    training.siluMultiplyBackward({
      gate,
      up,
      dy: this.#dActivated,
      dGate,
      dUp,
      length: tokens * intermediateSize,
    });
    const input = { x: normed, dx: this.#dNormed, tokens };
    layer.gate.backward(training, { ...input, y: gate, dy: dGate, gradient: linears?.gate });
    layer.up.backward(training, { ...input, y: up, dy: dUp, accumulate: true, gradient: linears?.up });
    training.rmsNormBackward({
      x: middle,
      weight: layer.postAttentionNorm,
      dy: this.#dNormed,
      dx: dHidden,
      dWeight: gradient.postAttentionNorm,
      rows: tokens,
      columns,
      epsilon,
    });
  }

  #attention({ layer, activations, gradient, input, dHidden, tokens }: LayerBackwardPass): void {
    const training = this.#training;
    const { hiddenSize, heads, kvHeads, headSize, rmsNormEpsilon: epsilon, slidingWindow } = this.#config;
    const { inputNormed, middle, rawQuery, rawKey } = activations;
    const { query, attended } = activations.workspace;
    const { keys, values } = activations.cache;
    const { linears } = gradient;
    layer.o.backward(training, {
      x: attended,
      y: linears?.o?.rowFactor && this.#difference(middle, input, tokens),
      dy: dHidden,
      dx: this.#dAttended,
      tokens,
      gradient: linears?.o,
    });
    training.attentionBackward({
      query,
      keys,
      values,
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
    const turn = { ...this.#rope, tokens, position: 0, headSize };
    training.ropeBackward({ ...turn, x: this.#dQuery, heads });
    training.ropeBackward({ ...turn, x: this.#dKey, heads: kvHeads });
    const dQuery = this.#headNorm(rawQuery, layer.qNorm, gradient.qNorm, this.#dQuery, tokens * heads);
    const normed = { x: inputNormed, dx: this.#dNormed, tokens };
    // What q and k gave is there turned only, unless a norm came between: it is turned back in place.
    if (linears?.q?.rowFactor && !rawQuery) training.ropeBackward({ ...turn, x: query, heads });
    if (linears?.k?.rowFactor && !rawKey) training.ropeBackward({ ...turn, x: keys, heads: kvHeads });
    layer.q.backward(training, { ...normed, y: rawQuery ?? query, dy: dQuery, gradient: linears?.q });
    const dKey = this.#headNorm(rawKey, layer.kNorm, gradient.kNorm, this.#dKey, tokens * kvHeads);
    const add = { ...normed, accumulate: true };
    layer.k.backward(training, { ...add, y: rawKey ?? keys, dy: dKey, gradient: linears?.k });
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
    const { projected: out } = this.#scratch;
    const length = tokens * this.#config.hiddenSize;
    difference(this.#backend, this.#training, { a, b, out, length });
    return out;
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
