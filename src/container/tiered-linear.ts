/**
 * The Linear of a tiered matrix: one Linear a tier, each for its range of rows. For the embedding and the
 * head, whose tiers are coded at rates of their own.
 */
import type { Backend, Buffer } from "../compute/backend.js";
import type { CodedRows, Linear } from "../compute/linear.js";

export interface TierLinear {
  /** First row of the tier in the whole matrix; tiers are in order and without gaps. */
  readonly start: number;
  readonly linear: Linear;
}

/**
 * Tokens that go through a tier at a time: enough that decoding its weights is shared well, few enough that
 * the tier's outputs beside y stay small (64 x 32,768 rows: 8 MB).
 */
const TOKENS_AT_ONCE = 64;

export class TieredLinear implements Linear {
  readonly inputs: number;
  readonly outputs: number;
  readonly #backend: Backend;
  readonly #tiers: readonly TierLinear[];
  /** Outputs and inputs of one tier; grown on demand. */
  #y: Buffer | undefined;
  #x: Buffer | undefined;

  /** Takes over the tiers: `free` frees them. */
  constructor(backend: Backend, tiers: readonly TierLinear[]) {
    this.#backend = backend;
    this.#tiers = tiers;
    this.inputs = tiers[0].linear.inputs;
    this.outputs = tiers.reduce((rows, { linear }) => rows + linear.outputs, 0);
  }

  get bytes(): number {
    return this.#tiers.reduce((bytes, { linear }) => bytes + linear.bytes, 0);
  }

  get coded(): readonly CodedRows[] | undefined {
    const parts = this.#tiers.map(({ start, linear }) =>
      linear.coded?.map((rows) => ({ ...rows, start: start + rows.start })),
    );
    return parts.every((rows) => rows !== undefined) ? parts.flat() : undefined;
  }

  forward(x: Buffer, y: Buffer, tokens: number, approximate?: boolean): void {
    const { inputs, outputs } = this;
    const backend = this.#backend;
    const most = Math.min(tokens, TOKENS_AT_ONCE);
    const widest = Math.max(...this.#tiers.map(({ linear }) => linear.outputs));
    this.#y = this.#atLeast(this.#y, most * widest);
    if (tokens > most) this.#x = this.#atLeast(this.#x, most * inputs);
    for (let first = 0; first < tokens; first += most) {
      const count = Math.min(most, tokens - first);
      let part = x;
      if (this.#x && tokens > most) {
        part = this.#x;
        backend.copy(x, first * inputs, part, 0, count * inputs);
      }
      for (const { start, linear } of this.#tiers) {
        linear.forward(part, this.#y, count, approximate);
        for (let t = 0; t < count; t++)
          backend.copy(this.#y, t * linear.outputs, y, (first + t) * outputs + start, linear.outputs);
      }
    }
  }

  gather(ids: Int32Array, y: Buffer): void {
    for (const { start, linear } of this.#tiers) {
      const places: number[] = [];
      ids.forEach((id, i) => {
        if (id >= start && id < start + linear.outputs) places.push(i);
      });
      if (places.length === 0) continue;
      const rows = Int32Array.from(places, (i) => ids[i] - start);
      if (places.length === ids.length) {
        linear.gather(rows, y);
        return;
      }
      this.#y = this.#atLeast(this.#y, rows.length * this.inputs);
      linear.gather(rows, this.#y);
      for (const [from, to] of places.entries())
        this.#backend.copy(this.#y, from * this.inputs, y, to * this.inputs, this.inputs);
    }
  }

  free(): void {
    for (const { linear } of this.#tiers) linear.free();
    if (this.#y) this.#backend.free(this.#y);
    if (this.#x) this.#backend.free(this.#x);
    this.#x = this.#y = undefined;
  }

  #atLeast(buffer: Buffer | undefined, length: number): Buffer {
    if (buffer && buffer.length >= length) return buffer;
    if (buffer) this.#backend.free(buffer);
    return this.#backend.allocate(length);
  }
}
