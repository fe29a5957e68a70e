/** A rotation's signs and Q on a backend, and rows turned by them. */
import type { Backend, Buffer, Rotation } from "../../compute/backend.js";
import { upload } from "../../compute/upload.js";
import { createRotation } from "../rotation.js";

export class UploadedRotation {
  /** f32 numbers held. */
  readonly length: number;
  readonly #backend: Backend;
  readonly #columns: number;
  /** On the backend, as its operations take it. */
  readonly parts: Rotation;
  /** Equal for equal rotations. */
  readonly key: string;

  constructor(backend: Backend, columns: number, seed: number) {
    const { signs, q, m } = createRotation(columns, seed);
    this.length = signs.length + q.length;
    this.#backend = backend;
    this.#columns = columns;
    this.parts = { signs: upload(backend, signs), q: upload(backend, q), m };
    this.key = `${columns} ${seed}`;
  }

  /** y = rows of x [rows, columns] rotated, or with `inverse` rotated back; y may be x. */
  rotate(x: Buffer, y: Buffer, rows: number, inverse: boolean): void {
    this.#backend.rotate({ x, y, ...this.parts, rows, columns: this.#columns, inverse });
  }

  free(): void {
    this.#backend.free(this.parts.signs);
    this.#backend.free(this.parts.q);
  }
}
