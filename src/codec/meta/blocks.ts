/**
 * Working memory and threads of the meta kernels: sub-vectors lie in blocks of 16 lanes, [block][d][16], and
 * every kernel takes a range of blocks.
 */
import type { WasmRuntime } from "../../compute/wasm/runtime.js";

export const LANES = 16;
/**
 * Ranges of blocks start at multiples of this, and gradients are summed for so many blocks (64 sub-vectors) at
 * a time: the same sums, in the same order, whatever the number of threads.
 */
export const CHUNK_BLOCKS = 4;

/** Allocations that are freed together. */
export class Arena {
  readonly #pointers: number[] = [];

  constructor(readonly runtime: WasmRuntime) {}

  /** The address of `length` zeroed 32-bit numbers. */
  words(length: number): number {
    const pointer = this.runtime.allocate(4 * length);
    this.#pointers.push(pointer);
    return pointer;
  }

  /** The address of a copy of `values`. */
  floats(values: Float32Array): number {
    const pointer = this.words(values.length);
    this.runtime.f32(pointer, values.length).set(values);
    return pointer;
  }

  free(): void {
    for (const pointer of this.#pointers.splice(0)) this.runtime.free(pointer);
  }
}

/**
 * Blocks that make a network kernel's call worth waking another thread for: 30 to 80 microseconds of work, where a
 * wake takes up to 60 when the machine is busy.
 */
const NETWORK_SHARE = 64;

/**
 * Runs a kernel over blocks 0 .. blocks - 1 on all threads; `args(thread, first, end)` are one thread's arguments.
 * No thread beyond the first gets less than `share` blocks.
 */
export function runBlocks(
  runtime: WasmRuntime,
  kernel: string,
  blocks: number,
  args: (thread: number, first: number, end: number) => readonly number[],
  share = NETWORK_SHARE,
): void {
  const chunks = Math.ceil(blocks / CHUNK_BLOCKS);
  const threads = Math.min(runtime.threads, chunks, Math.max(1, Math.floor(blocks / share)));
  const boundary = (thread: number) =>
    Math.min(blocks, Math.round((thread * chunks) / threads) * CHUNK_BLOCKS);
  runtime.parallel(
    kernel,
    Array.from({ length: threads }, (_, thread) => args(thread, boundary(thread), boundary(thread + 1))),
  );
}

/** [n, d] -> [block][d][16]; lanes past n stay as they are. */
export function toBlocks(vectors: Float32Array, d: number, out: Float32Array): void {
  const count = vectors.length / d;
  for (let vector = 0; vector < count; vector++) {
    const at = Math.floor(vector / LANES) * d * LANES + (vector % LANES);
    for (let i = 0; i < d; i++) out[at + i * LANES] = vectors[vector * d + i];
  }
}

/** The inverse of `toBlocks`, for `count` vectors. */
export function fromBlocks(blocks: Float32Array, d: number, count: number): Float32Array {
  const out = new Float32Array(count * d);
  for (let vector = 0; vector < count; vector++) {
    const at = Math.floor(vector / LANES) * d * LANES + (vector % LANES);
    for (let i = 0; i < d; i++) out[vector * d + i] = blocks[at + i * LANES];
  }
  return out;
}
