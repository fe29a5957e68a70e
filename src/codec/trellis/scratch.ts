/** Memory that a computation borrows from a runtime and gives back as a whole. */
import type { WasmRuntime } from "../../compute/wasm/runtime.js";

export class Scratch {
  readonly #runtime: WasmRuntime;
  readonly #pointers: number[] = [];

  constructor(runtime: WasmRuntime) {
    this.#runtime = runtime;
  }

  /** The address of `bytes` zeroed bytes. */
  bytes(bytes: number): number {
    const pointer = this.#runtime.allocate(bytes);
    this.#pointers.push(pointer);
    return pointer;
  }

  floats(values: Float32Array): number {
    const pointer = this.bytes(4 * values.length);
    this.#runtime.f32(pointer, values.length).set(values);
    return pointer;
  }

  words(values: ArrayLike<number>): number {
    const pointer = this.bytes(4 * values.length);
    this.#runtime.i32(pointer, values.length).set(values);
    return pointer;
  }

  free(): void {
    for (const pointer of this.#pointers.splice(0)) this.#runtime.free(pointer);
  }
}

/**
 * Floats from one row of a plane to the next: at least `width`, and an odd number of 64-byte cache lines, so
 * that walking down a column does not fall into a few sets of the cache.
 */
export function planeStride(width: number): number {
  return 16 * (Math.ceil(width / 16) | 1);
}
