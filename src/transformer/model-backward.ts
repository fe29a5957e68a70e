/**
 * Gradients of a whole model over a batch of windows, layer by layer: all windows go through a layer before
 * the next is opened, forward and then backward, so a model whose layers are made when they are opened (coded
 * weights) needs memory for one of them.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import type { DenseLinear, LinearGradient } from "../compute/linear.js";
import type { TrainingBackend } from "../compute/training.js";
import { throwIfAborted } from "../errors.js";
import { allocateTogether, type BufferGroup } from "./buffers.js";
import { allocateCache, type LayerCache } from "./kv-cache.js";
import { forwardLayer } from "./layer.js";
import {
  activationFloats,
  type LayerActivations,
  LayerBackward,
  type LayerGradient,
  type TrainableLayer,
} from "./layer-backward.js";
import { type Rope, uploadRope } from "./rope.js";
import { allocateWorkspace, type Workspace } from "./workspace.js";

/** What gradients are taken of. Gradients are added to the buffers it names; what is absent is not trained. */
export interface TrainableModel {
  readonly config: ModelConfig;
  /** Dense for the length of a step. The head is the same object where embeddings are tied. */
  readonly embedding: DenseLinear;
  readonly head: DenseLinear;
  readonly finalNorm: Buffer;
  readonly gradient: {
    /** Of a matrix without a bias; gets both parts where embeddings are tied. */
    readonly embedding?: LinearGradient | undefined;
    readonly head?: LinearGradient | undefined;
    readonly finalNorm?: Buffer | undefined;
  };
  /** Called for the forward and again for the backward pass; one layer is open at a time. */
  openLayer(index: number, pass: Pass): Promise<OpenLayer>;
  /** After the backward pass the layer's gradients are complete. */
  closeLayer(index: number, pass: Pass): Promise<void>;
}

export type Pass = "forward" | "backward";

export interface OpenLayer {
  readonly layer: TrainableLayer;
  /** Used in the backward pass only. */
  readonly gradient: LayerGradient;
}

/** Some consecutive positions of one window on their way through the head. */
export interface HeadChunk {
  readonly window: number;
  /** Position of the first row. */
  readonly from: number;
  readonly tokens: number;
  /** Of the vocabulary. */
  readonly columns: number;
  /** [tokens, columns]: to be overwritten by the loss's gradient. */
  readonly logits: Buffer;
}

export interface BackwardOptions {
  /** Token ids, each at most `maxTokens` long. */
  readonly windows: readonly Int32Array[];
  /** Overwrites a chunk's logits with the gradient of the loss that is minimised. */
  readonly loss: (chunk: HeadChunk) => void | Promise<void>;
  /** For each window the first position that has a loss; those before go through no head. Default: 0. */
  readonly starts?: readonly number[] | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Logits on the backend at a time: 2^24 floats (64 MiB) are 341 tokens of a vocabulary of 49,152. */
export const HEAD_ELEMENTS = 2 ** 24;
/**
 * Activations of all layers and windows are kept for the backward pass up to this size, which saves one
 * forward pass: 1 GB for 1024 tokens of SmolLM2-135M. Else those of one layer and window, computed twice.
 */
const KEPT_BYTES = 1.25 * 2 ** 30;

/** One for each layer and window where that fits `keptBytes`, else one. */
function activationSets(config: ModelConfig, windows: number, tokens: number, keptBytes: number): number {
  const sets = config.layers * windows;
  return 4 * activationFloats(config) * tokens * sets <= keptBytes ? sets : 1;
}

/** About what a ModelBackward for `windows` windows of `tokens` tokens takes, the loss's own logits with it. */
export function backwardBytes(config: ModelConfig, windows: number, tokens: number): number {
  const { layers, hiddenSize, vocabularySize } = config;
  const one = 4 * activationFloats(config) * tokens;
  const activations = one * activationSets(config, windows, tokens, KEPT_BYTES);
  const hidden = 4 * tokens * hiddenSize * (layers + 2) * windows;
  // Of the model, kept for the gradient of a row's factor, and of the teacher.
  return activations + hidden + 3 * 4 * Math.min(HEAD_ELEMENTS, tokens * vocabularySize);
}

interface Activations {
  /** Whether each layer and window has its own, which the forward pass fills. */
  readonly kept: boolean;
  readonly of: (layer: number, window: number) => LayerActivations;
}

/** The buffers of a training step, for batches of at most `maxWindows` windows of `maxTokens` tokens. */
export class ModelBackward {
  readonly #backend: Backend;
  readonly #training: TrainingBackend;
  readonly #config: ModelConfig;
  readonly #group: BufferGroup;
  readonly #rope: Rope;
  readonly #workspace: Workspace;
  readonly #cache: LayerCache;
  readonly #layer: LayerBackward;
  /** [layers + 1][maxWindows]: [maxTokens, hiddenSize], what goes into each layer and what the last gives. */
  readonly #hidden: readonly (readonly Buffer[])[];
  readonly #dHidden: readonly Buffer[];
  readonly #normed: Buffer;
  readonly #dNormed: Buffer;
  readonly #headTokens: number;
  readonly #headInput: Buffer;
  readonly #dHeadInput: Buffer;
  readonly #logits: Buffer;
  #keptLogits: Buffer | undefined;
  /** Made for the first backward pass. */
  #activations: Activations | undefined;

  constructor(
    backend: Backend,
    training: TrainingBackend,
    config: ModelConfig,
    readonly maxWindows: number,
    readonly maxTokens: number,
    /** Most bytes of activations that are kept; else they are computed twice. */
    readonly keptBytes = KEPT_BYTES,
  ) {
    this.#backend = backend;
    this.#training = training;
    this.#config = config;
    const { layers, hiddenSize, vocabularySize } = config;
    this.#headTokens = Math.max(1, Math.min(maxTokens, Math.floor(HEAD_ELEMENTS / vocabularySize)));
    const built = allocateTogether(backend, (group) => {
      const rope = uploadRope(group, config, maxTokens);
      const rows = () => group.allocate(maxTokens * hiddenSize);
      const windows = () => Array.from({ length: maxWindows }, rows);
      return {
        group,
        rope,
        workspace: allocateWorkspace(group, config, maxTokens),
        cache: allocateCache(group, config, maxTokens),
        layer: new LayerBackward(backend, training, config, group, rope, maxTokens),
        hidden: Array.from({ length: layers + 1 }, windows),
        dHidden: windows(),
        normed: rows(),
        dNormed: rows(),
        headInput: group.allocate(this.#headTokens * hiddenSize),
        dHeadInput: group.allocate(this.#headTokens * hiddenSize),
        logits: group.allocate(this.#headTokens * vocabularySize),
      };
    });
    this.#group = built.group;
    this.#rope = built.rope;
    this.#workspace = built.workspace;
    this.#cache = built.cache;
    this.#layer = built.layer;
    this.#hidden = built.hidden;
    this.#dHidden = built.dHidden;
    this.#normed = built.normed;
    this.#dNormed = built.dNormed;
    this.#headInput = built.headInput;
    this.#dHeadInput = built.dHeadInput;
    this.#logits = built.logits;
  }

  /** Adds the gradients of the loss over `windows` to the model's. */
  async run(model: TrainableModel, { windows, loss, starts, signal }: BackwardOptions): Promise<void> {
    this.#activations ??= this.#allocateActivations();
    const activations = this.#activations;
    await this.#forward(model, windows, activations.kept ? activations : undefined, signal);
    for (const [w, ids] of windows.entries()) {
      throwIfAborted(signal);
      await this.#head(model, w, { start: starts?.[w] ?? 0, tokens: ids.length, loss });
    }
    for (let index = model.config.layers - 1; index >= 0; index--) {
      await turn(signal);
      const { layer, gradient } = await model.openLayer(index, "backward");
      for (const [w, ids] of windows.entries()) {
        const input = this.#hidden[index][w];
        const pass = { layer, input, activations: activations.of(index, w), tokens: ids.length };
        if (!activations.kept) this.#layer.compute(pass);
        const [output, dHidden] = [this.#hidden[index + 1][w], this.#dHidden[w]];
        this.#layer.run({ ...pass, gradient, output, dHidden });
      }
      await model.closeLayer(index, "backward");
    }
    const { weight, rowFactor } = model.gradient.embedding ?? {};
    for (const [w, ids] of windows.entries()) {
      if (weight) this.#training.scatterAdd(weight, ids, this.#config.hiddenSize, this.#dHidden[w]);
      if (rowFactor) await this.#addLookedUp(rowFactor, w, ids);
    }
  }

  #allocateActivations(): Activations {
    const sets = activationSets(this.#config, this.maxWindows, this.maxTokens, this.keptBytes);
    const kept = sets === this.#config.layers * this.maxWindows;
    const all = Array.from({ length: sets }, () => this.#layer.allocateActivations());
    return { kept, of: (layer, window) => all[kept ? layer * this.maxWindows + window : 0] };
  }

  /** rowFactor[ids[t]] += dHidden[t] · hidden[t], by the embeddings as they were looked up. */
  async #addLookedUp(rowFactor: Buffer, window: number, ids: Int32Array): Promise<void> {
    const { hiddenSize } = this.#config;
    const [sums, x, dx] = await Promise.all([
      this.#backend.read(rowFactor),
      this.#backend.read(this.#hidden[0][window], 0, ids.length * hiddenSize),
      this.#backend.read(this.#dHidden[window], 0, ids.length * hiddenSize),
    ]);
    for (const [t, id] of ids.entries()) {
      let dot = 0;
      for (let i = t * hiddenSize; i < (t + 1) * hiddenSize; i++) dot += x[i] * dx[i];
      sums[id] += dot;
    }
    this.#backend.write(rowFactor, sums);
  }

  /** Only forward: afterwards `chunks` gives the logits. */
  async forward(
    model: TrainableModel,
    windows: readonly Int32Array[],
    signal?: AbortSignal | undefined,
  ): Promise<void> {
    await this.#forward(model, windows, undefined, signal);
  }

  async #forward(
    model: TrainableModel,
    windows: readonly Int32Array[],
    kept: Activations | undefined,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const backend = this.#backend;
    const { layers, hiddenSize } = this.#config;
    if (windows.length > this.maxWindows || windows.some((ids) => ids.length > this.maxTokens))
      throw new RangeError("a batch larger than the buffers made for it");
    for (const [w, ids] of windows.entries()) model.embedding.gather(ids, this.#hidden[0][w]);
    for (let index = 0; index < layers; index++) {
      await turn(signal);
      const { layer } = await model.openLayer(index, "forward");
      for (const [w, ids] of windows.entries()) {
        const hidden = this.#hidden[index + 1][w];
        if (kept) {
          const [input, activations] = [this.#hidden[index][w], kept.of(index, w)];
          const pass = { layer, input, activations, tokens: ids.length };
          this.#layer.compute(pass);
          this.#layer.finish(pass, hidden);
          continue;
        }
        backend.copy(this.#hidden[index][w], 0, hidden, 0, ids.length * hiddenSize);
        forwardLayer(backend, this.#config, layer, this.#workspace, {
          hidden,
          cache: this.#cache,
          tokens: ids.length,
          position: 0,
          rope: this.#rope,
        });
      }
      await model.closeLayer(index, "forward");
    }
  }

  /**
   * After `forward`: logits [tokens, vocabularySize] of positions from .. from + tokens - 1 of a window of
   * `length` tokens, in a buffer that the next call overwrites. Ask for a window's positions in order from 0.
   */
  logits(model: TrainableModel, window: number, length: number, from: number, tokens: number): Buffer {
    if (tokens > this.#headTokens) throw new RangeError(`${tokens} rows of logits for ${this.#headTokens}`);
    if (from === 0) this.#normaliseFinal(model, window, length);
    this.#chunkLogits(model, from, tokens);
    return this.#logits;
  }

  /** After `forward`: the logits of a window's positions from `start`, chunk by chunk; `use` may overwrite them. */
  async chunks(
    model: TrainableModel,
    window: number,
    length: number,
    use: (chunk: HeadChunk) => void | Promise<void>,
    start = 0,
  ): Promise<void> {
    if (start > 0) this.#normaliseFinal(model, window, length);
    for (let from = start; from < length; from += this.#headTokens) {
      const tokens = Math.min(this.#headTokens, length - from);
      await use({
        window,
        from,
        tokens,
        columns: this.#config.vocabularySize,
        logits: this.logits(model, window, length, from, tokens),
      });
    }
  }

  free(): void {
    this.#group.free();
  }

  #normaliseFinal(model: TrainableModel, window: number, tokens: number): void {
    const { layers, hiddenSize, rmsNormEpsilon } = this.#config;
    const from = this.#hidden[layers][window];
    this.#backend.rmsNorm(from, model.finalNorm, this.#normed, tokens, hiddenSize, rmsNormEpsilon);
  }

  /** Logits of some positions of the window that was normalised last. */
  #chunkLogits(model: TrainableModel, from: number, tokens: number): void {
    const { hiddenSize } = this.#config;
    this.#backend.copy(this.#normed, from * hiddenSize, this.#headInput, 0, tokens * hiddenSize);
    model.head.forward(this.#headInput, this.#logits, tokens);
  }

  async #head(
    model: TrainableModel,
    window: number,
    {
      start,
      tokens,
      loss,
    }: Pick<BackwardOptions, "loss"> & { readonly start: number; readonly tokens: number },
  ): Promise<void> {
    const { layers, hiddenSize: columns, rmsNormEpsilon: epsilon } = this.#config;
    const tied = model.head === model.embedding;
    const gradient = tied ? model.gradient.embedding : model.gradient.head;
    this.#training.zero(this.#dNormed, start * columns);
    const backward = async (chunk: HeadChunk) => {
      const { from, tokens: count } = chunk;
      let y: Buffer | undefined;
      if (gradient?.rowFactor) {
        // The loss overwrites them.
        y = this.#keptLogits ??= this.#group.allocate(this.#logits.length);
        this.#backend.copy(this.#logits, 0, y, 0, count * this.#config.vocabularySize);
      }
      await loss(chunk);
      model.head.backward(this.#training, {
        x: this.#headInput,
        y,
        dy: this.#logits,
        dx: this.#dHeadInput,
        tokens: count,
        gradient,
      });
      this.#backend.copy(this.#dHeadInput, 0, this.#dNormed, from * columns, count * columns);
    };
    await this.chunks(model, window, tokens, backward, start);
    const dHidden = this.#dHidden[window];
    this.#training.zero(dHidden, tokens * columns);
    this.#training.rmsNormBackward({
      x: this.#hidden[layers][window],
      weight: model.finalNorm,
      dy: this.#dNormed,
      dx: dHidden,
      dWeight: model.gradient.finalNorm,
      rows: tokens,
      columns,
      epsilon,
    });
  }
}

/** Lets timers and signals have their turn. */
async function turn(signal: AbortSignal | undefined): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve));
  throwIfAborted(signal);
}
