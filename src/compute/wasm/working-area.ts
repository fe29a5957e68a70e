/** Memory that every operation of a backend overwrites, grown as needed. */
import type { WasmRuntime } from "./runtime.js";

export class WorkingArea {
  readonly #runtime: WasmRuntime;
  #pointer = 0;
  #bytes = 0;

  constructor(runtime: WasmRuntime) {
    this.#runtime = runtime;
  }

  /** The address of `bytes` of memory, good until the next operation; not zeroed. */
  reserve(bytes: number): number {
    if (bytes > this.#bytes) {
      this.free();
      this.#pointer = this.#runtime.allocate(bytes);
      this.#bytes = bytes;
    }
    return this.#pointer;
  }

  /** Gives the memory back; the next `reserve` takes it again. */
  free(): void {
    if (this.#bytes > 0) this.#runtime.free(this.#pointer);
    this.#bytes = 0;
  }
}
