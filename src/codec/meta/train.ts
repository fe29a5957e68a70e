/**
 * Training of encoder, codebook and decoder for one matrix, by hand-derived gradients on the kernels.
 *
 * Loss of a batch of n sub-vectors x, with z = encoder(x), q the nearest entry to z, y = decoder(q):
 * MSE = sum of importance * |y - x|² / (n d), in units of the matrix's mean variance;
 * loss = sqrt(MSE) + lambda * sum |q - z|² / (n d) ("paper"), or MSE + the same ("code"). The gradient with
 * respect to q goes to z unchanged (straight-through); entries learn from the second term only.
 */
import type { WasmRuntime } from "../../compute/wasm/runtime.js";
import { InputError, throwIfAborted } from "../../errors.js";
import type { Random } from "../../random.js";
import { Adam } from "./adam.js";
import { Arena, fromBlocks, LANES, runBlocks } from "./blocks.js";
import type { Groups } from "./groups.js";
import { kMeans } from "./kmeans.js";
import { NearestSearch } from "./nearest.js";
import { blockLayout, initialParameters } from "./network.js";
import type { MetaOptions } from "./options.js";
import { type Batch, MlpStack, Workspace } from "./stack.js";

/** Smaller batches than this are mostly noise and calling kernels. */
const MINIMUM_BATCH = 256;
/** How long training holds the thread; a turn of the event loop costs a millisecond. */
const TURN_MILLISECONDS = 50;

export interface TrainingSet {
  /** Normalised sub-vectors [n, d]. */
  readonly vectors: Float32Array;
  /** [n]: what a unit of squared error costs, 1 on average. */
  readonly importance: Float32Array;
  readonly groups: Groups;
}

export interface Model {
  readonly encoder: Float32Array;
  /** [k, d] */
  readonly codebook: Float32Array;
  readonly decoder: Float32Array;
}

export interface BatchGradients {
  readonly mse: number;
  readonly encoder: Float64Array;
  /** [k, d]: a view, good until the next batch. */
  readonly codebook: Float32Array;
  readonly decoder: Float64Array;
}

export class Trainer {
  readonly #runtime: WasmRuntime;
  readonly #arena: Arena;
  readonly #set: TrainingSet;
  readonly #options: MetaOptions;
  readonly #batchSize: number;
  readonly #workspace: Workspace;
  readonly #encoder: MlpStack;
  readonly #decoder: MlpStack;
  readonly #search: NearestSearch;
  readonly #vectors: number;
  readonly #codebook: number;
  readonly #codebookGradient: number;
  readonly #indices: number;
  readonly #importance: number;
  readonly #present: number;
  readonly #errors: number;
  readonly #encoderGradient: number;

  /** Networks start at random, the codebook at N(0, 2 / sqrt(d)). `free` must be called. */
  constructor(runtime: WasmRuntime, set: TrainingSet, options: MetaOptions, random: Random) {
    const { d, k } = options;
    const { starts } = set.groups;
    let largest = 0;
    for (let g = 0; g + 1 < starts.length; g++) largest = Math.max(largest, starts[g + 1] - starts[g]);
    const count = starts[starts.length - 1];
    const perStep = Math.max(MINIMUM_BATCH, Math.ceil(count / options.stepsPerEpoch));
    this.#batchSize = Math.min(options.batch, perStep);
    const capacity = Math.ceil(Math.min(count, Math.max(this.#batchSize, largest)) / LANES);
    const lanes = capacity * LANES;
    this.#runtime = runtime;
    this.#set = set;
    this.#options = options;
    const arena = new Arena(runtime);
    this.#arena = arena;
    try {
      this.#workspace = new Workspace(arena, options, capacity);
      this.#encoder = new MlpStack(this.#workspace, initialParameters(options, random));
      this.#decoder = new MlpStack(this.#workspace, initialParameters(options, random));
      const deviation = 2 / Math.sqrt(d);
      this.#codebook = arena.floats(new Float32Array(k * d).map(() => deviation * random.normal()));
      this.#codebookGradient = arena.words(k * d);
      this.#search = new NearestSearch(arena, k, d, capacity);
      this.#vectors = arena.floats(set.vectors);
      this.#indices = arena.words(lanes);
      this.#importance = arena.words(lanes);
      this.#present = arena.words(lanes);
      this.#errors = arena.words(capacity);
      this.#encoderGradient = arena.words(lanes * d);
    } catch (error) {
      arena.free();
      throw error;
    }
  }

  free(): void {
    this.#arena.free();
  }

  /** Copies of everything that is trained. */
  model(): Model {
    const [encoder, codebook, decoder] = this.#trained().map((values) => values.slice());
    return { encoder, codebook, decoder };
  }

  setModel(model: Model): void {
    const [encoder, codebook, decoder] = this.#trained();
    encoder.set(model.encoder);
    codebook.set(model.codebook);
    decoder.set(model.decoder);
  }

  /** Cuts the groups, in this order, into batches; at least one group each. */
  batches(order: Int32Array): Int32Array[] {
    const { starts } = this.#set.groups;
    const out: Int32Array[] = [];
    let first = 0;
    let size = 0;
    for (let i = 0; i < order.length; i++) {
      const next = starts[order[i] + 1] - starts[order[i]];
      if (i > first && size + next > this.#batchSize) {
        out.push(order.subarray(first, i));
        first = i;
        size = 0;
      }
      size += next;
    }
    out.push(order.subarray(first));
    return out;
  }

  /** Mean squared error of one batch of groups, and the gradients of the loss. */
  gradients(groupIds: Int32Array): BatchGradients {
    const runtime = this.#runtime;
    const { d, k, lambda, loss } = this.#options;
    const workspace = this.#workspace;
    const batch = this.#load(groupIds);
    this.#encode(batch);
    const { codes } = this.#search;
    workspace.gather(this.#codebook, codes, this.#decoder.input, batch.blocks);
    this.#decoder.forward(batch);
    runBlocks(runtime, "metaLoss", batch.blocks, (_, first, end) => [
      d,
      this.#decoder.output,
      this.#encoder.input,
      this.#importance,
      workspace.gradient,
      this.#errors,
      first,
      end,
    ]);
    const numbers = batch.count * d;
    const mse = sum(runtime.f32(this.#errors, batch.blocks)) / numbers;
    // d MSE / dy is 2 / numbers times what metaLoss leaves; RMSE divides that by 2 RMSE.
    const scale = loss === "code" ? 2 / numbers : 1 / (numbers * Math.max(Math.sqrt(mse), 1e-12));
    const decoder = this.#decoder.backward(batch, scale);
    runBlocks(runtime, "metaStraightThrough", batch.blocks, (_, first, end) => [
      d,
      this.#encoder.output,
      this.#decoder.input,
      this.#present,
      scale,
      (2 * lambda) / numbers,
      workspace.gradient,
      this.#encoderGradient,
      first,
      end,
    ]);
    const codebook = runtime.f32(this.#codebookGradient, k * d);
    codebook.fill(0);
    runtime.exports["metaScatterAdd"](d, workspace.gradient, codes, this.#codebookGradient, 0, batch.blocks);
    runtime
      .f32(workspace.gradient, batch.blocks * LANES * d)
      .set(runtime.f32(this.#encoderGradient, batch.blocks * LANES * d));
    const encoder = this.#encoder.backward(batch, 1);
    return { mse, encoder, codebook, decoder };
  }

  /** Trains by the options and keeps the state after the epoch with the least mean MSE. */
  async train(
    random: Random,
    onEpoch: (epoch: number, mse: number) => void,
    signal: AbortSignal | undefined,
  ): Promise<Model> {
    const options = this.#options;
    const { starts } = this.#set.groups;
    const order = Int32Array.from({ length: starts.length - 1 }, (_, i) => i);
    const optimisers = this.#trained().map((values) => new Adam(values.length));
    if (options.initialisation === "kmeans") await this.#initialiseByKMeans(random, signal);
    let nextTurn = 0;
    let best = this.model();
    let least = Number.POSITIVE_INFINITY;
    for (let epoch = 0; epoch < options.epochs; epoch++) {
      const rate = options.learningRate * options.decay ** Math.floor(epoch / options.decayEpochs);
      random.shuffle(order);
      let errors = 0;
      const batches = this.batches(order);
      for (const groupIds of batches) {
        throwIfAborted(signal);
        const gradients = this.gradients(groupIds);
        errors += gradients.mse;
        const values = this.#trained();
        optimisers[0].step(values[0], gradients.encoder, rate);
        optimisers[1].step(values[1], gradients.codebook, rate);
        optimisers[2].step(values[2], gradients.decoder, rate);
        if (performance.now() > nextTurn) {
          // A turn of the event loop, so that an interrupt is seen.
          await new Promise((resolve) => setTimeout(resolve));
          nextTurn = performance.now() + TURN_MILLISECONDS;
        }
      }
      const mse = errors / batches.length;
      if (!Number.isFinite(mse))
        throw new InputError("meta: training diverged (the error is not finite); use a lower learning rate");
      if (mse < least) {
        least = mse;
        best = this.model();
      }
      onEpoch(epoch, mse);
    }
    return best;
  }

  /** Encoder outputs [n, d] and nearest entries [n] of all sub-vectors, by the present model. */
  encodeAll(): { readonly z: Float32Array; readonly codes: Int32Array } {
    const { vectors, groups } = this.#set;
    const { d } = this.#options;
    const z = new Float32Array(vectors.length);
    const codes = new Int32Array(vectors.length / d);
    const order = Int32Array.from({ length: groups.starts.length - 1 }, (_, i) => i);
    for (const groupIds of this.batches(order)) {
      const batch = this.#load(groupIds);
      this.#encode(batch);
      const members = this.#runtime.i32(this.#indices, batch.count).slice();
      const outputs = fromBlocks(
        this.#runtime.f32(this.#encoder.output, batch.blocks * LANES * d),
        d,
        batch.count,
      );
      const found = this.#search.readCodes(batch.count);
      members.forEach((member, lane) => {
        codes[member] = found[lane];
        z.set(outputs.subarray(lane * d, lane * d + d), member * d);
      });
    }
    return { z, codes };
  }

  /** Views of encoder, codebook and decoder in the kernels' memory. */
  #trained(): [Float32Array, Float32Array, Float32Array] {
    const { d, k, blocks } = this.#options;
    const length = blocks * blockLayout(this.#options).length;
    return [
      this.#runtime.f32(this.#encoder.parameters, length),
      this.#runtime.f32(this.#codebook, k * d),
      this.#runtime.f32(this.#decoder.parameters, length),
    ];
  }

  /** Brings a batch's sub-vectors to the encoder's input. */
  #load(groupIds: Int32Array): Batch {
    const { members, starts: groupStarts } = this.#set.groups;
    const { capacity } = this.#workspace;
    const indices = this.#runtime.i32(this.#indices, capacity * LANES);
    const importance = this.#runtime.f32(this.#importance, capacity * LANES);
    const starts = new Int32Array(groupIds.length + 1);
    let count = 0;
    groupIds.forEach((group, i) => {
      const own = members.subarray(groupStarts[group], groupStarts[group + 1]);
      indices.set(own, count);
      for (const member of own) importance[count++] = this.#set.importance[member];
      starts[i + 1] = count;
    });
    // Padding lanes repeat sub-vector 0 and weigh nothing.
    indices.fill(0, count);
    importance.fill(0, count);
    this.#runtime
      .f32(this.#present, capacity * LANES)
      .fill(1, 0, count)
      .fill(0, count);
    const batch = { count, blocks: Math.ceil(count / LANES), starts };
    this.#workspace.gather(this.#vectors, this.#indices, this.#encoder.input, batch.blocks);
    return batch;
  }

  #encode(batch: Batch): void {
    const { d, k } = this.#options;
    this.#encoder.forward(batch);
    this.#search.setCodebook(this.#runtime.f32(this.#codebook, k * d));
    this.#search.search(this.#encoder.output, batch.blocks);
  }

  async #initialiseByKMeans(random: Random, signal: AbortSignal | undefined): Promise<void> {
    const { d, k } = this.#options;
    const { codebook } = await kMeans(this.#runtime, { vectors: this.encodeAll().z, d, k, random, signal });
    this.#runtime.f32(this.#codebook, k * d).set(codebook);
  }
}

function sum(values: Float32Array): number {
  let total = 0;
  for (const value of values) total += value;
  return total;
}
