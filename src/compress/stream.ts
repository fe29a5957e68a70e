/**
 * Calibration activations, streamed through the model layer by layer. Two residual streams run side by side:
 * the original model's and that of the model as coded so far, so that each matrix is coded for the inputs it
 * will really get. What is held is the two streams and one layer's attention output; inputs of matrices are
 * summed into Hessians window by window and never kept. Windows that are held out go along and are summed into
 * nothing: at the end they tell how far the coded model's predictions are from the original's.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Buffer } from "../compute/backend.js";
import { difference } from "../compute/difference.js";
import type { Linear } from "../compute/linear.js";
import type { WasmBackend } from "../compute/wasm/backend.js";
import { WasmTraining } from "../compute/wasm/training.js";
import { BufferGroup } from "../transformer/buffers.js";
import { allocateCache, type LayerCache } from "../transformer/kv-cache.js";
import { forwardLayer, LayerSteps, type TapSite } from "../transformer/layer.js";
import { type Rope, uploadRope } from "../transformer/rope.js";
import type { LayerLinear, LayerWeights } from "../transformer/weights.js";
import { allocateWorkspace, type Workspace } from "../transformer/workspace.js";

/** Sums over the calibration tokens of the input x of a site's matrices, divided by the number of tokens. */
export interface SiteStatistics {
  readonly columns: number;
  /** E[x xᵀ], x from the coded model: [columns, columns]. */
  readonly hessian: Float32Array;
  /** E[x x₀ᵀ], x₀ the original model's input at the same place. */
  readonly cross: Float32Array;
  /**
   * Where a matrix's output is added to the residual stream (o, down): E[(h₀ - h) xᵀ], [hiddenSize, columns],
   * h₀ and h the original's and the coded model's stream before that.
   */
  readonly residual?: Float32Array | undefined;
}

/** The layer as coded so far: matrices are added as they are coded. */
export type CodedLayer = Omit<LayerWeights, LayerLinear> & { [K in LayerLinear]?: Linear };

/** A stream's place in a layer: the buffers that one window's steps work on. */
interface Lane {
  readonly hidden: readonly Buffer[];
  readonly steps: LayerSteps;
}

/** Two such buffers of logits: 128 MB each. */
const LOGITS_AT_ONCE = 2 ** 25;

export class CalibrationStream {
  readonly #backend: WasmBackend;
  readonly #training: WasmTraining;
  readonly #config: ModelConfig;
  /** Those that are summed, then those that are held out. */
  readonly #windows: readonly Int32Array[];
  readonly #summed: number;
  readonly #group: BufferGroup;
  readonly #original: Lane;
  readonly #coded: Lane;
  /** The coded lane's attention output, kept from before o is coded until after. */
  readonly #attended: readonly Buffer[];
  readonly #scratch = new Map<string, Buffer>();
  readonly #cache: LayerCache;
  readonly #rope: Rope;

  /** `summed` and `heldOut`: token ids, windows all of one length. */
  constructor(
    backend: WasmBackend,
    config: ModelConfig,
    summed: readonly Int32Array[],
    heldOut: readonly Int32Array[] = [],
  ) {
    const windows = [...summed, ...heldOut];
    const tokens = windows[0].length;
    const group = new BufferGroup(backend);
    this.#backend = backend;
    this.#training = new WasmTraining(backend);
    this.#config = config;
    this.#windows = windows;
    this.#summed = summed.length;
    this.#group = group;
    const rows = (columns: number) => windows.map(() => group.allocate(tokens * columns));
    const lane = (): Lane => {
      const workspace = allocateWorkspace(group, config, tokens);
      return { hidden: rows(config.hiddenSize), steps: new LayerSteps(backend, config, workspace, tokens) };
    };
    this.#original = lane();
    this.#coded = lane();
    this.#attended = rows(config.heads * config.headSize);
    this.#cache = allocateCache(group, config, tokens);
    this.#rope = uploadRope(group, config, tokens);
  }

  /** That sums are over. */
  get tokens(): number {
    return this.#summed * this.#windows[0].length;
  }

  /** Sets both streams to the embeddings of the tokens. */
  start(original: Linear, coded: Linear): void {
    this.#windows.forEach((ids, w) => {
      original.gather(ids, this.#original.hidden[w]);
      coded.gather(ids, this.#coded.hidden[w]);
    });
  }

  /** Runs the first `count` windows of the original stream alone through one layer. */
  forwardOriginal(layer: LayerWeights, count: number): void {
    const { hidden, steps } = this.#original;
    for (const buffer of hidden.slice(0, count)) {
      forwardLayer(this.#backend, this.#config, layer, steps.workspace, {
        hidden: buffer,
        cache: this.#cache,
        tokens: steps.tokens,
        position: 0,
        rope: this.#rope,
      });
    }
  }

  /** E[x xᵀ] of the normalised final hidden state of the first `count` windows: the head's input. */
  async headHessian(stream: "original" | "coded", finalNorm: Buffer, count: number): Promise<Float32Array> {
    const { hidden, steps } = stream === "original" ? this.#original : this.#coded;
    const columns = this.#config.hiddenSize;
    const sum = new MatrixSum(this.#backend, columns);
    for (const buffer of hidden.slice(0, count)) {
      steps.normalise(buffer, finalNorm);
      this.#backend.gram(steps.workspace.normed, sum.buffer, steps.tokens, columns);
    }
    return sum.mean(count * steps.tokens);
  }

  /**
   * Brings both streams to the inputs of `site` and sums their statistics (null when `measure` is false,
   * as for matrices that an interrupted run has already coded). The sites of a layer must be visited in
   * order; `coded` must hold the matrices of the sites before.
   */
  async visit(
    site: TapSite,
    original: LayerWeights,
    coded: CodedLayer,
    measure: boolean,
  ): Promise<SiteStatistics | null> {
    const { columns, input } = this.#site(site);
    const hessian = measure ? new MatrixSum(this.#backend, columns) : null;
    const cross = measure ? new MatrixSum(this.#backend, columns) : null;
    const adds = site === "o" || site === "down";
    const residual =
      measure && adds ? new MatrixSum(this.#backend, columns, this.#config.hiddenSize) : undefined;
    for (let w = 0; w < this.#windows.length; w++) {
      this.#advanceOriginal(site, original, w);
      this.#advanceCoded(site, coded, w);
      if (hessian && cross && w < this.#summed) {
        const { tokens } = this.#coded.steps;
        let x = input(this.#coded.steps.workspace);
        let x0 = input(this.#original.steps.workspace);
        if (residual) {
          const weights = await this.#residualWeights(w);
          const outputs = this.#config.hiddenSize;
          x = await this.#weighted("x", x, weights, columns);
          x0 = await this.#weighted("x0", x0, weights, columns);
          const dy = await this.#weighted("difference", this.#difference(w), weights, outputs);
          const dWeight = residual.buffer;
          this.#training.matmulBackwardWeight({ dy, x, dWeight, tokens, inputs: columns, outputs });
        }
        this.#backend.gram(x, hessian.buffer, tokens, columns);
        this.#backend.crossGram(x, x0, cross.buffer, tokens, columns);
      }
      this.#leaveOriginal(site, original, w);
    }
    if (!hessian || !cross) return null;
    return {
      columns,
      hessian: await hessian.mean(this.tokens),
      cross: await cross.mean(this.tokens),
      residual: await residual?.mean(this.tokens),
    };
  }

  /** h₀ - h of window `w`. */
  #difference(w: number): Buffer {
    const { tokens, workspace } = this.#coded.steps;
    const out = workspace.projected;
    const [a, b] = [this.#original.hidden[w], this.#coded.hidden[w]];
    difference(this.#backend, this.#training, { a, b, out, length: tokens * this.#config.hiddenSize });
    return out;
  }

  /** 1 / RMS of the original's residual stream, for each position of window `w`. */
  async #residualWeights(w: number): Promise<Float32Array> {
    const { hiddenSize, rmsNormEpsilon } = this.#config;
    const hidden = await this.#backend.read(this.#original.hidden[w]);
    const weights = new Float32Array(hidden.length / hiddenSize);
    for (let t = 0; t < weights.length; t++) {
      let sum = 0;
      for (let i = t * hiddenSize; i < (t + 1) * hiddenSize; i++) sum += hidden[i] * hidden[i];
      weights[t] = 1 / Math.sqrt(sum / hiddenSize + rmsNormEpsilon);
    }
    return weights;
  }

  /** Rows of x [weights.length, columns] times their weights, in the buffer of this name. */
  async #weighted(name: string, x: Buffer, weights: Float32Array, columns: number): Promise<Buffer> {
    const length = weights.length * columns;
    const values = await this.#backend.read(x, 0, length);
    for (const [t, weight] of weights.entries())
      for (let i = t * columns; i < (t + 1) * columns; i++) values[i] *= weight;
    let buffer = this.#scratch.get(name);
    if (!buffer || buffer.length < length) {
      buffer = this.#group.allocate(length);
      this.#scratch.set(name, buffer);
    }
    this.#backend.write(buffer, values);
    return buffer;
  }

  /** Takes the coded stream through the layer's last matrix. */
  finish(coded: CodedLayer): void {
    const { steps, hidden } = this.#coded;
    for (const buffer of hidden) {
      steps.normalise(buffer, coded.postAttentionNorm);
      steps.activate(coded as LayerWeights);
      steps.addProjected(coded.down!, steps.workspace.gate, buffer);
    }
  }

  /**
   * Mean KL(original ‖ coded) of the predictions at all positions of the windows that are held out, in nats,
   * once both streams are through the last layer; null without such windows.
   */
  async heldOutDivergence(
    finalNorm: Buffer,
    originalHead: Linear,
    codedHead: Linear,
  ): Promise<number | null> {
    const count = this.#windows.length - this.#summed;
    if (count === 0) return null;
    const columns = this.#config.vocabularySize;
    const { hiddenSize } = this.#config;
    const group = new BufferGroup(this.#backend);
    const rows = Math.max(1, Math.min(this.#windows[0].length, Math.floor(LOGITS_AT_ONCE / columns)));
    const [reference, logits, x, loss] = [rows * columns, rows * columns, rows * hiddenSize, rows].map((n) =>
      group.allocate(n),
    );
    let sum = 0;
    try {
      for (let w = this.#summed; w < this.#windows.length; w++) {
        const lanes = [
          { ...this.#original, head: originalHead, out: reference },
          { ...this.#coded, head: codedHead, out: logits },
        ];
        for (const { steps, hidden } of lanes) steps.normalise(hidden[w], finalNorm);
        for (let from = 0; from < this.#windows[w].length; from += rows) {
          const tokens = Math.min(rows, this.#windows[w].length - from);
          for (const { steps, head, out } of lanes) {
            const { normed } = steps.workspace;
            this.#backend.copy(normed, from * hiddenSize, x, 0, tokens * hiddenSize);
            head.forward(x, out, tokens);
          }
          this.#training.divergence({ reference, logits, loss, rows: tokens, columns, scale: 1 });
          for (const value of await this.#backend.read(loss, 0, tokens)) sum += value;
        }
      }
    } finally {
      group.free();
    }
    return sum / (count * this.#windows[0].length);
  }

  free(): void {
    this.#group.free();
    this.#training.free();
  }

  #site(site: TapSite): { columns: number; input: (workspace: Workspace) => Buffer } {
    const { hiddenSize, heads, headSize, intermediateSize } = this.#config;
    switch (site) {
      case "o":
        return { columns: heads * headSize, input: (w) => w.attended };
      case "down":
        return { columns: intermediateSize, input: (w) => w.gate };
      default:
        return { columns: hiddenSize, input: (w) => w.normed };
    }
  }

  #advanceOriginal(site: TapSite, layer: LayerWeights, w: number): void {
    this.#advance(site, this.#original, layer, w);
  }

  /** The original stream's own matrices are known: it goes on as soon as its input has been summed. */
  #leaveOriginal(site: TapSite, layer: LayerWeights, w: number): void {
    const { steps, hidden } = this.#original;
    if (site === "o") steps.addProjected(layer.o, steps.workspace.attended, hidden[w]);
    if (site === "down") steps.addProjected(layer.down, steps.workspace.gate, hidden[w]);
  }

  #advanceCoded(site: TapSite, layer: CodedLayer, w: number): void {
    const { steps, hidden } = this.#coded;
    if (site === "gateUp") steps.addProjected(layer.o!, this.#attended[w], hidden[w]);
    this.#advance(site, this.#coded, layer as LayerWeights, w);
    if (site === "o") {
      const { attended } = steps.workspace;
      this.#backend.copy(attended, 0, this.#attended[w], 0, attended.length);
    }
  }

  #advance(site: TapSite, { steps, hidden }: Lane, layer: LayerWeights, w: number): void {
    const attention = site === "qkv" || site === "o";
    steps.normalise(hidden[w], attention ? layer.inputNorm : layer.postAttentionNorm);
    if (site === "o") steps.attend(layer, this.#cache, 0, this.#rope);
    if (site === "down") steps.activate(layer);
  }
}

/** A [rows, columns] sum on the backend that is read once as a mean. */
class MatrixSum {
  readonly buffer: Buffer;

  constructor(
    readonly backend: WasmBackend,
    columns: number,
    rows = columns,
  ) {
    this.buffer = backend.allocate(rows * columns);
  }

  async mean(count: number): Promise<Float32Array> {
    const sum = await this.backend.read(this.buffer);
    this.backend.free(this.buffer);
    for (let i = 0; i < sum.length; i++) sum[i] /= count;
    return sum;
  }
}
