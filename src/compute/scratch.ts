/** Working memory that Linears of one backend share: what one call leaves there, the next overwrites. */
import type { Backend, Buffer } from "./backend.js";
import { grown } from "./upload.js";

const shared = new WeakMap<Backend, SharedScratch>();

export class SharedScratch {
  readonly #backend: Backend;
  #users = 0;
  #buffer: Buffer | undefined;

  private constructor(backend: Backend) {
    this.#backend = backend;
  }

  /** The backend's; each user calls `release` once. */
  static of(backend: Backend): SharedScratch {
    const scratch = shared.get(backend) ?? new SharedScratch(backend);
    shared.set(backend, scratch);
    scratch.#users++;
    return scratch;
  }

  /** At least `length` floats, good until the next call. */
  take(length: number): Buffer {
    this.#buffer = grown(this.#backend, this.#buffer, length);
    return this.#buffer;
  }

  /** The last user's gives the memory back. */
  release(): void {
    if (--this.#users > 0 || !this.#buffer) return;
    this.#backend.free(this.#buffer);
    this.#buffer = undefined;
  }
}
