/** A Linear with a low-rank adapter over it, unmerged (LoRA; Hu et al. 2021, arXiv 2106.09685): y = Wx + sB(Ax). */
import type { Backend, Buffer } from "./backend.js";
import type { Linear, LinearBackwardOptions, TrainableLinear } from "./linear.js";
import type { TrainingBackend } from "./training.js";
import { grown } from "./upload.js";

/** The numbers of an adapter of one matrix; what it adds is multiplied by the adapter's scale besides. */
export interface LowRankPair {
  readonly rank: number;
  /** [rank, inputs] */
  readonly a: Float32Array;
  /** [outputs, rank] */
  readonly b: Float32Array;
}

/** What sB(Ax) needs on the way, one for all Linears of a backend: grown to the most that was asked for. */
export class AdapterScratch {
  readonly #backend: Backend;
  #inner: Buffer | undefined;
  #outer: Buffer | undefined;

  constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** At least `length` floats, for Ax and its gradient. */
  inner(length: number): Buffer {
    this.#inner = grown(this.#backend, this.#inner, length);
    return this.#inner;
  }

  /** At least `length` floats, for sB(Ax). */
  outer(length: number): Buffer {
    this.#outer = grown(this.#backend, this.#outer, length);
    return this.#outer;
  }
}

/** A pair on a backend. */
export interface UploadedPair {
  readonly rank: number;
  /** [rank, inputs] */
  readonly a: Buffer;
  /** [outputs, rank], multiplied by the scale s. */
  readonly sb: Buffer;
}

export class AdaptedLinear<Base extends Linear = Linear> implements Linear {
  readonly inputs: number;
  readonly outputs: number;
  readonly bytes: number;
  protected readonly backend: Backend;
  protected readonly base: Base;
  protected readonly pair: UploadedPair;
  protected readonly scratch: AdapterScratch;

  /** Takes `base` and `pair` over: `free` frees them. RangeError when they do not fit each other. */
  constructor(backend: Backend, base: Base, pair: UploadedPair, scratch: AdapterScratch) {
    const { inputs, outputs } = base;
    const { rank, a, sb } = pair;
    if (a.length !== rank * inputs || sb.length !== outputs * rank)
      throw new RangeError(`an adapter of rank ${rank} does not fit [${outputs}, ${inputs}]`);
    this.inputs = inputs;
    this.outputs = outputs;
    this.bytes = base.bytes + 4 * (a.length + sb.length);
    this.backend = backend;
    this.base = base;
    this.pair = pair;
    this.scratch = scratch;
  }

  forward(x: Buffer, y: Buffer, tokens: number, approximate?: boolean): void {
    const { backend, inputs, outputs } = this;
    const { rank, a, sb } = this.pair;
    this.base.forward(x, y, tokens, approximate);
    const inner = this.scratch.inner(tokens * rank);
    const outer = this.scratch.outer(tokens * outputs);
    backend.matmul({ x, weight: a, y: inner, tokens, inputs, outputs: rank });
    backend.matmul({ x: inner, weight: sb, y: outer, tokens, inputs: rank, outputs });
    backend.add(y, outer, tokens * outputs);
  }

  /** Adapters are on the matrices of layers, whose rows nobody looks up. */
  gather(): never {
    throw new Error("rows of a matrix with an adapter are not looked up");
  }

  free(): void {
    this.base.free();
    this.backend.free(this.pair.a);
    this.backend.free(this.pair.sb);
  }
}

/** The gradients of a pair: dA [rank, inputs], dB [outputs, rank] (not of sB). */
export interface PairGradient {
  readonly dA: Buffer;
  readonly dB: Buffer;
}

/** The same where the adapter learns and its base does not; gradients come from x and dy alone. */
export class LearningAdaptedLinear extends AdaptedLinear<TrainableLinear> implements TrainableLinear {
  readonly #gradient: PairGradient;
  readonly #scale: number;

  constructor(
    backend: Backend,
    base: TrainableLinear,
    pair: UploadedPair,
    scratch: AdapterScratch,
    { gradient, scale }: { readonly gradient: PairGradient; readonly scale: number },
  ) {
    super(backend, base, pair, scratch);
    this.#gradient = gradient;
    this.#scale = scale;
  }

  backward(training: TrainingBackend, options: LinearBackwardOptions): void {
    const { backend, inputs, outputs } = this;
    const { rank, a, sb } = this.pair;
    const { x, dy, dx, tokens } = options;
    this.base.backward(training, { ...options, gradient: undefined });
    const inner = this.scratch.inner(tokens * rank);
    // Computed again: kept from the forward pass it would be a buffer for each matrix and window.
    backend.matmul({ x, weight: a, y: inner, tokens, inputs, outputs: rank });
    training.scale(inner, this.#scale, tokens * rank);
    training.matmulBackwardWeight({
      dy,
      x: inner,
      dWeight: this.#gradient.dB,
      tokens,
      inputs: rank,
      outputs,
    });
    training.matmulBackwardInput({ dy, weight: sb, dx: inner, tokens, inputs: rank, outputs });
    const below = { dy: inner, tokens, inputs, outputs: rank };
    training.matmulBackwardWeight({ ...below, x, dWeight: this.#gradient.dA });
    if (dx) training.matmulBackwardInput({ ...below, weight: a, dx, accumulate: true });
  }
}
