/**
 * The `Linear` that everything multiplies through: dense weights here, coded weights in codec/, adapters
 * over either in adapted-linear.ts. A Linear owns its buffers on one backend.
 */
import type { Backend, Buffer, Rotation, TrellisWeights } from "./backend.js";
import type { TrainingBackend } from "./training.js";
import { upload } from "./upload.js";

export interface Linear {
  readonly inputs: number;
  readonly outputs: number;
  /** Bytes of memory that the weights hold on the backend. */
  readonly bytes: number;
  /**
   * y [tokens, outputs] = x [tokens, inputs] Wᵀ (+ bias). `approximate`: as the backend's `trellisMatmul`, where the
   * weights are coded for it.
   */
  forward(x: Buffer, y: Buffer, tokens: number, approximate?: boolean): void;
  /** y [ids.length, inputs] = rows of W: the embedding look-up of a matrix shared with the head. */
  gather(ids: Int32Array, y: Buffer): void;
  /** What `Backend.tokenProducts` takes in place of `forward`; absent where the weights are not coded for it. */
  readonly coded?: readonly CodedRows[] | undefined;
  free(): void;
}

/** Coded rows of a matrix, from `start` on. */
export interface CodedRows {
  readonly start: number;
  readonly weight: TrellisWeights;
  readonly bias?: Buffer | undefined;
  readonly rotation: Rotation;
  /** Equal keys: the same rotation. */
  readonly rotationKey: string;
}

/** A Linear that gradients can be taken of. */
export interface TrainableLinear extends Linear {
  /** Gradients of `forward`: that of the input into dx, those of what is trained are added to. */
  backward(training: TrainingBackend, options: LinearBackwardOptions): void;
}

/** Where the gradients of a dense Linear are added to; what is absent is not trained. */
export interface LinearGradient {
  /** [outputs, inputs] */
  readonly weight?: Buffer | undefined;
  /** [outputs] */
  readonly bias?: Buffer | undefined;
  /**
   * [outputs]: Σ_t dy y, the gradient of a factor on each row of weights (and its bias) where the factor is 1.
   * It needs `y`, and costs nothing beside the weights' own gradient.
   */
  readonly rowFactor?: Buffer | undefined;
}

export interface LinearBackwardOptions {
  /** [tokens, inputs]: what `forward` was given. */
  readonly x: Buffer;
  /** [tokens, outputs] */
  readonly dy: Buffer;
  /** [tokens, outputs]: what `forward` gave; used for row factors only. */
  readonly y?: Buffer | undefined;
  /** [tokens, inputs], or null where the input needs no gradient. */
  readonly dx: Buffer | null;
  readonly tokens: number;
  /** Adds to dx instead of overwriting it. */
  readonly accumulate?: boolean;
  readonly gradient?: LinearGradient | undefined;
}

/** f32 weights [outputs, inputs]. */
export class DenseLinear implements TrainableLinear {
  readonly bytes: number;
  readonly #backend: Backend;
  /** The weights themselves, for programs that change them between calls. */
  readonly weight: Buffer;
  readonly #bias: Buffer | undefined;

  /** `weight` and `bias` as numbers to upload, or as buffers to take over: `free` frees them. */
  constructor(
    backend: Backend,
    readonly outputs: number,
    readonly inputs: number,
    weight: Float32Array | Buffer,
    bias?: Float32Array | Buffer | undefined,
  ) {
    this.#backend = backend;
    const taken = (data: Float32Array | Buffer) =>
      data instanceof Float32Array ? upload(backend, data) : data;
    this.weight = taken(weight);
    if (bias) this.#bias = taken(bias);
    this.bytes = 4 * (weight.length + (bias?.length ?? 0));
  }

  forward(x: Buffer, y: Buffer, tokens: number): void {
    const { inputs, outputs } = this;
    this.#backend.matmul({ x, weight: this.weight, bias: this.#bias, y, tokens, inputs, outputs });
  }

  /** Gradients of `forward`: dx = dy W, and the weight's and bias's are added to. */
  backward(
    training: TrainingBackend,
    { x, y, dy, dx, tokens, accumulate, gradient }: LinearBackwardOptions,
  ): void {
    const { inputs, outputs } = this;
    if (dx)
      training.matmulBackwardInput({
        dy,
        weight: this.weight,
        dx,
        tokens,
        inputs,
        outputs,
        ...(accumulate !== undefined && { accumulate }),
      });
    if (gradient?.weight)
      training.matmulBackwardWeight({ dy, x, dWeight: gradient.weight, tokens, inputs, outputs });
    if (gradient?.rowFactor) {
      if (!y) throw new Error("a row factor's gradient needs the output");
      training.columnDots(dy, y, gradient.rowFactor, tokens, outputs);
    }
    if (gradient?.bias) training.columnDots(dy, undefined, gradient.bias, tokens, outputs);
  }

  gather(ids: Int32Array, y: Buffer): void {
    this.#backend.gather(this.weight, ids, this.inputs, y);
  }

  free(): void {
    this.#backend.free(this.weight);
    if (this.#bias) this.#backend.free(this.#bias);
  }
}
