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
  readonly missing: Missing;
}

/**
 * What the coded layers before have changed, as far as x tells. Of a site's input: E[x (x₀ - x)ᵀ] [columns, columns],
 * x₀ the original model's input at the same place. Of the one matrix W whose output is added to the residual stream
 * (o, down): E[(h₀ - h - W x) xᵀ] [hiddenSize, columns], h₀ the original's stream after that, h the coded model's
 * before it.
 */
export interface Missing {
  readonly of: "input" | "output";
  readonly moment: Float32Array;
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
/**
 * Inputs of down are kept up to this size, which saves an eighth of a layer's products: 277 MB for 45,056 tokens of
 * SmolLM2-135M. Else gate and up run once more.
 */
const KEPT_BYTES = 2 ** 29;

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
  /** The coded lane's inputs of o and, where there is room, of down, kept from before these are coded until after. */
  readonly #attended: readonly Buffer[];
  readonly #activated: readonly Buffer[] | undefined;
  readonly #residual: Buffer;
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
    if (4 * windows.length * tokens * config.intermediateSize <= KEPT_BYTES)
      this.#activated = rows(config.intermediateSize);
    this.#residual = group.allocate(tokens * config.hiddenSize);
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
   * Brings both streams to the inputs of `site` and sums their statistics (null when `measure` is false, as for
   * matrices that an interrupted run has already coded); the original's goes on through the site. The sites of a
   * layer must be visited in order; `coded` must hold the matrices of the sites before.
   */
  async visit(
    site: TapSite,
    original: LayerWeights,
    coded: CodedLayer,
    measure: boolean,
  ): Promise<SiteStatistics | null> {
    const { columns, input } = this.#site(site);
    const output = site === "o" ? original.o : site === "down" ? original.down : undefined;
    const sums = measure
      ? {
          hessian: new MatrixSum(this.#backend, columns),
          missing: new MatrixSum(this.#backend, columns, output ? this.#config.hiddenSize : columns),
        }
      : null;
    for (let w = 0; w < this.#windows.length; w++) {
      this.#advance(site, this.#original, original, w);
      this.#advanceCoded(site, coded, w);
      const { tokens, workspace } = this.#coded.steps;
      const [x, x0] = [input(workspace), input(this.#original.steps.workspace)];
      const summed = w < this.#summed ? sums : null;
      const weights = summed && output && (await this.#residualWeights(w));
      // The original stream's own matrices are known: it goes on at once.
      if (output) this.#original.steps.addProjected(output, x0, this.#original.hidden[w]);
      if (!summed) continue;
      const { hessian, missing } = summed;
      if (output && weights) {
        this.#residualWithout(output, x, w);
        await this.#weigh(this.#residual, weights);
        await this.#weigh(x, weights);
        this.#backend.crossGram(this.#residual, x, missing.buffer, tokens, this.#config.hiddenSize, columns);
      } else this.#backend.crossGram(x, x0, missing.buffer, tokens, columns);
      this.#backend.gram(x, hessian.buffer, tokens, columns);
    }
    if (!sums) return null;
    const hessian = await sums.hessian.mean(this.tokens);
    const moment = await sums.missing.mean(this.tokens);
    if (!output) for (let i = 0; i < moment.length; i++) moment[i] -= hessian[i];
    return { columns, hessian, missing: { of: output ? "output" : "input", moment } };
  }

  /** residual = h₀ - h - W x of window `w` (see `Missing`), the original stream being through W already. */
  #residualWithout(output: Linear, x: Buffer, w: number): void {
    const out = this.#residual;
    const { length } = out;
    this.#backend.copy(this.#coded.hidden[w], 0, out, 0, length);
    this.#coded.steps.addProjected(output, x, out);
    difference(this.#backend, this.#training, { a: this.#original.hidden[w], b: out, out, length });
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

  /** Multiplies the rows of x, one for each of `weights`, by these. */
  async #weigh(x: Buffer, weights: Float32Array): Promise<void> {
    const values = await this.#backend.read(x);
    const columns = values.length / weights.length;
    for (const [t, weight] of weights.entries())
      for (let i = t * columns; i < (t + 1) * columns; i++) values[i] *= weight;
    this.#backend.write(x, values);
  }

  /** Takes the coded stream through the layer's last matrix. */
  finish(coded: CodedLayer): void {
    const { steps, hidden } = this.#coded;
    for (const [w, buffer] of hidden.entries()) {
      if (!this.#activated) {
        steps.normalise(buffer, coded.postAttentionNorm);
        steps.activate(coded as LayerWeights);
      }
      steps.addProjected(coded.down!, this.#activated?.[w] ?? steps.workspace.gate, buffer);
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

  #advanceCoded(site: TapSite, layer: CodedLayer, w: number): void {
    const { steps, hidden } = this.#coded;
    if (site === "gateUp") steps.addProjected(layer.o!, this.#attended[w], hidden[w]);
    this.#advance(site, this.#coded, layer as LayerWeights, w);
    const { attended, gate } = steps.workspace;
    if (site === "o") this.#backend.copy(attended, 0, this.#attended[w], 0, attended.length);
    if (site === "down" && this.#activated)
      this.#backend.copy(gate, 0, this.#activated[w], 0, this.#activated[w].length);
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
