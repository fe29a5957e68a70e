/**
 * Plain k-means (Lloyd) over sub-vectors: one of the codebook initialisations, and what the trained network is
 * measured against.
 */
import type { WasmRuntime } from "../../compute/wasm/runtime.js";
import { throwIfAborted } from "../../errors.js";
import type { Random } from "../../random.js";
import { Arena, LANES, toBlocks } from "./blocks.js";
import { NearestSearch } from "./nearest.js";

export interface KMeansOptions {
  /** [n, d], n > k */
  readonly vectors: Float32Array;
  /** 4 or 8 */
  readonly d: number;
  /** A multiple of 16. */
  readonly k: number;
  /** Default 10; 100 take another 0 to 2 % off the error. */
  readonly iterations?: number | undefined;
  readonly random: Random;
  readonly signal?: AbortSignal | undefined;
}

export interface KMeansResult {
  /** [k, d] */
  readonly codebook: Float32Array;
  /** [n], nearest entries of `codebook`. */
  readonly codes: Int32Array;
}

/** Starts from k vectors drawn without replacement; an entry that loses all vectors moves to a random one. */
export async function kMeans(runtime: WasmRuntime, options: KMeansOptions): Promise<KMeansResult> {
  const { vectors, d, k, iterations = 10, random, signal } = options;
  const count = vectors.length / d;
  const blocks = Math.ceil(count / LANES);
  const arena = new Arena(runtime);
  try {
    const search = new NearestSearch(arena, k, d, blocks);
    const z = arena.words(blocks * LANES * d);
    toBlocks(vectors, d, runtime.f32(z, blocks * LANES * d));
    const order = Int32Array.from({ length: count }, (_, i) => i);
    random.shuffle(order);
    const codebook = new Float32Array(k * d);
    for (let entry = 0; entry < k; entry++)
      codebook.set(vectors.subarray(order[entry] * d, order[entry] * d + d), entry * d);
    const assign = () => {
      search.setCodebook(codebook);
      search.search(z, blocks);
      return search.readCodes(count);
    };
    for (let iteration = 0; iteration < iterations; iteration++) {
      throwIfAborted(signal);
      moveToMeans(codebook, vectors, assign(), d, random);
      await new Promise((resolve) => setTimeout(resolve));
    }
    return { codebook, codes: assign() };
  } finally {
    arena.free();
  }
}

function moveToMeans(
  codebook: Float32Array,
  vectors: Float32Array,
  codes: Int32Array,
  d: number,
  random: Random,
): void {
  const sums = new Float64Array(codebook.length);
  const counts = new Int32Array(codebook.length / d);
  for (let vector = 0; vector < codes.length; vector++) {
    const entry = codes[vector];
    counts[entry]++;
    for (let i = 0; i < d; i++) sums[entry * d + i] += vectors[vector * d + i];
  }
  for (let entry = 0; entry < counts.length; entry++) {
    const lost = counts[entry] === 0 ? random.below(codes.length) : -1;
    for (let i = 0; i < d; i++)
      codebook[entry * d + i] = lost < 0 ? sums[entry * d + i] / counts[entry] : vectors[lost * d + i];
  }
}
