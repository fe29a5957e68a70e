/**
 * The `Linear` that everything multiplies through: dense weights here, coded weights in codec/, adapters
 * later. A Linear owns its buffers on one backend.
 */
import type { Backend, Buffer } from "./backend.js";

export interface Linear {
  readonly inputs: number;
  readonly outputs: number;
  /** Bytes of memory that the weights hold on the backend. */
  readonly bytes: number;
  /** y [tokens, outputs] = x [tokens, inputs] Wᵀ (+ bias). */
  forward(x: Buffer, y: Buffer, tokens: number): void;
  /** y [ids.length, inputs] = rows of W: the embedding look-up of a matrix shared with the head. */
  gather(ids: Int32Array, y: Buffer): void;
  free(): void;
}

/** f32 weights [outputs, inputs]. */
export class DenseLinear implements Linear {
  readonly bytes: number;
  readonly #backend: Backend;
  readonly #weight: Buffer;
  readonly #bias: Buffer | undefined;

  constructor(
    backend: Backend,
    readonly outputs: number,
    readonly inputs: number,
    weight: Float32Array,
    bias?: Float32Array | undefined,
  ) {
    this.#backend = backend;
    this.#weight = backend.allocate(outputs * inputs);
    backend.write(this.#weight, weight);
    if (bias) {
      this.#bias = backend.allocate(outputs);
      backend.write(this.#bias, bias);
    }
    this.bytes = 4 * (weight.length + (bias?.length ?? 0));
  }

  forward(x: Buffer, y: Buffer, tokens: number): void {
    const { inputs, outputs } = this;
    this.#backend.matmul({ x, weight: this.#weight, bias: this.#bias, y, tokens, inputs, outputs });
  }

  gather(ids: Int32Array, y: Buffer): void {
    this.#backend.gather(this.#weight, ids, this.inputs, y);
  }

  free(): void {
    this.#backend.free(this.#weight);
    if (this.#bias) this.#backend.free(this.#bias);
  }
}
