/** A rotation's signs and Q on a backend, and rows turned by them. */
import type { Backend, Buffer } from "../../compute/backend.js";
import { upload } from "../../compute/upload.js";
import { createRotation } from "../rotation.js";

export class UploadedRotation {
  /** f32 numbers held. */
  readonly length: number;
  readonly #backend: Backend;
  readonly #columns: number;
  readonly #signs: Buffer;
  readonly #q: Buffer;
  readonly #m: number;

  constructor(backend: Backend, columns: number, seed: number) {
    const { signs, q, m } = createRotation(columns, seed);
    this.length = signs.length + q.length;
    this.#backend = backend;
    this.#columns = columns;
    this.#signs = upload(backend, signs);
    this.#q = upload(backend, q);
    this.#m = m;
  }

  /** y = rows of x [rows, columns] rotated, or with `inverse` rotated back; y may be x. */
  rotate(x: Buffer, y: Buffer, rows: number, inverse: boolean): void {
    const parts = { signs: this.#signs, q: this.#q, m: this.#m };
    this.#backend.rotate({ x, y, ...parts, rows, columns: this.#columns, inverse });
  }

  free(): void {
    this.#backend.free(this.#signs);
    this.#backend.free(this.#q);
  }
}
