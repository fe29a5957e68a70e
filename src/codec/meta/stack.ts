/**
 * A stack of MLP blocks (network.ts) on the kernels: forward and backward over one batch of whole RLN groups.
 * Holds its parameters and every block's input; the rest of the memory is shared between encoder and decoder.
 */
import { type Arena, CHUNK_BLOCKS, LANES, runBlocks } from "./blocks.js";
import { blockLayout, RLN_EPSILON } from "./network.js";
import type { MetaShape } from "./options.js";

/** Sub-vectors of a batch, in lanes 0 .. count - 1; group g has lanes starts[g] .. starts[g + 1] - 1. */
export interface Batch {
  readonly count: number;
  readonly blocks: number;
  readonly starts: Int32Array;
}

/** What passes over a batch need beside activations; sized for batches of up to `capacity` blocks. */
export class Workspace {
  /** Per lane: moments of the activation that was written last. */
  readonly sum: number;
  readonly sumOfSquares: number;
  /** [block][d][16]: gradient with respect to a stack's output, replaced by that of its input. */
  readonly gradient: number;
  readonly dx: number;
  readonly meanOfDx: number;
  readonly meanOfDxX: number;
  readonly partials: number;
  readonly #scratch: number;
  readonly #scratchWords: number;

  constructor(
    readonly arena: Arena,
    readonly shape: MetaShape,
    readonly capacity: number,
  ) {
    const { d, hidden } = shape;
    const lanes = capacity * LANES;
    const { length } = blockLayout(shape);
    this.sum = arena.words(lanes);
    this.sumOfSquares = arena.words(lanes);
    this.gradient = arena.words(lanes * d);
    this.dx = arena.words(lanes * d);
    this.meanOfDx = arena.words(lanes);
    this.meanOfDxX = arena.words(lanes);
    this.partials = arena.words(Math.ceil(capacity / CHUNK_BLOCKS) * length);
    this.#scratchWords = (3 * d + 2 * hidden) * LANES + 4 * length;
    this.#scratch = arena.words(arena.runtime.threads * this.#scratchWords);
  }

  scratch(thread: number): number {
    return this.#scratch + 4 * thread * this.#scratchWords;
  }

  /** out [block][d][16] = rows `indices` of a table [*, d], with moments. */
  gather(table: number, indices: number, out: number, blocks: number): void {
    runBlocks(this.arena.runtime, "metaGather", blocks, (_, first, end) => [
      table,
      this.shape.d,
      indices,
      out,
      this.sum,
      this.sumOfSquares,
      first,
      end,
    ]);
  }

  /** Sums the lane values at a and b over each group and spreads `finish(sumA, sumB, numbers)` back over its lanes. */
  overGroups(
    batch: Batch,
    [a, b]: readonly [number, number],
    [outA, outB]: readonly [number, number],
    finish: (sumA: number, sumB: number, numbers: number) => readonly [number, number],
  ): void {
    const { runtime } = this.arena;
    const lanes = batch.blocks * LANES;
    const [valuesA, valuesB] = [runtime.f32(a, lanes), runtime.f32(b, lanes)];
    const [spreadA, spreadB] = [runtime.f32(outA, lanes), runtime.f32(outB, lanes)];
    for (let group = 0; group + 1 < batch.starts.length; group++) {
      const first = batch.starts[group];
      const end = batch.starts[group + 1];
      let sumA = 0;
      let sumB = 0;
      for (let lane = first; lane < end; lane++) {
        sumA += valuesA[lane];
        sumB += valuesB[lane];
      }
      const [x, y] = finish(sumA, sumB, (end - first) * this.shape.d);
      spreadA.fill(x, first, end);
      spreadB.fill(y, first, end);
    }
    // Lanes of padding: no gradient passes a zero 1/sigma.
    spreadA.fill(0, batch.count);
    spreadB.fill(0, batch.count);
  }
}

export class MlpStack {
  /** [blocks * block length], f32 (network.ts, blockLayout). */
  readonly parameters: number;
  /** Address of the stack's input and output, [block][d][16]. */
  readonly input: number;
  readonly output: number;
  readonly #workspace: Workspace;
  /** Inputs of the blocks, and the output of the last. */
  readonly #activations: number[];
  readonly #means: number[];
  readonly #inverses: number[];

  constructor(workspace: Workspace, parameters: Float32Array) {
    const { arena, shape, capacity } = workspace;
    const lanes = capacity * LANES;
    this.#workspace = workspace;
    this.parameters = arena.floats(parameters);
    const activations = () => arena.words(lanes * shape.d);
    this.#activations = Array.from({ length: shape.blocks + 1 }, activations);
    this.#means = Array.from({ length: shape.blocks }, () => arena.words(lanes));
    this.#inverses = Array.from({ length: shape.blocks }, () =>
      arena.floats(new Float32Array(lanes).fill(1)),
    );
    this.input = this.#activations[0];
    this.output = this.#activations[shape.blocks];
  }

  /** From `input`, whose moments are in the workspace, to `output`. */
  forward(batch: Batch): void {
    const workspace = this.#workspace;
    const { shape, arena } = workspace;
    const { length } = blockLayout(shape);
    for (let block = 0; block < shape.blocks; block++) {
      if (shape.rln !== "off") this.#measure(batch, block);
      runBlocks(arena.runtime, "metaForward", batch.blocks, (thread, first, end) => [
        this.parameters + 4 * block * length,
        shape.d,
        shape.hidden,
        block > 0 ? 1 : 0,
        this.#activations[block],
        this.#means[block],
        this.#inverses[block],
        this.#activations[block + 1],
        workspace.sum,
        workspace.sumOfSquares,
        workspace.scratch(thread),
        first,
        end,
      ]);
    }
  }

  /**
   * Backward from `workspace.gradient` (with respect to the output), which becomes the gradient of the input.
   * Returns that of the parameters, times `scale`.
   */
  backward(batch: Batch, scale: number): Float64Array {
    const workspace = this.#workspace;
    const { shape, arena, gradient, dx } = workspace;
    const { runtime } = arena;
    const { length } = blockLayout(shape);
    const gradients = new Float64Array(shape.blocks * length);
    for (let block = shape.blocks - 1; block >= 0; block--) {
      runBlocks(runtime, "metaBackward", batch.blocks, (thread, first, end) => [
        this.parameters + 4 * block * length,
        shape.d,
        shape.hidden,
        this.#activations[block],
        this.#means[block],
        this.#inverses[block],
        gradient,
        dx,
        workspace.sum,
        workspace.sumOfSquares,
        workspace.partials,
        CHUNK_BLOCKS,
        workspace.scratch(thread),
        first,
        end,
      ]);
      const chunks = Math.ceil(batch.blocks / CHUNK_BLOCKS);
      const partials = runtime.f32(workspace.partials, chunks * length);
      const target = gradients.subarray(block * length, (block + 1) * length);
      for (let chunk = 0; chunk < chunks; chunk++)
        for (let i = 0; i < length; i++) target[i] += scale * partials[chunk * length + i];
      if (shape.rln === "off") target.fill(0, 0, 2 * shape.d);
      this.#backwardNorm(batch, block);
    }
    return gradients;
  }

  /** Mean and 1/sigma of every group, from the moments in the workspace. */
  #measure(batch: Batch, block: number): void {
    const { sum, sumOfSquares } = this.#workspace;
    this.#workspace.overGroups(
      batch,
      [sum, sumOfSquares],
      [this.#means[block], this.#inverses[block]],
      (total, squares, numbers) => {
        const mean = total / numbers;
        return [mean, 1 / Math.sqrt(Math.max(0, squares / numbers - mean * mean) + RLN_EPSILON)];
      },
    );
  }

  /** `workspace.gradient` = gradient of the norm's input, from dx and its lane sums in the workspace. */
  #backwardNorm(batch: Batch, block: number): void {
    const workspace = this.#workspace;
    const { shape, gradient, dx, meanOfDx, meanOfDxX } = workspace;
    if (shape.rln !== "off")
      workspace.overGroups(
        batch,
        [workspace.sum, workspace.sumOfSquares],
        [meanOfDx, meanOfDxX],
        (sum, products, numbers) => [sum / numbers, products / numbers],
      );
    runBlocks(workspace.arena.runtime, "metaBackwardNorm", batch.blocks, (_, first, end) => [
      shape.d,
      block > 0 ? 1 : 0,
      this.#activations[block],
      this.#means[block],
      this.#inverses[block],
      dx,
      meanOfDx,
      meanOfDxX,
      gradient,
      gradient,
      first,
      end,
    ]);
  }
}
