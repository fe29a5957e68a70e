/** The nearest entry of a codebook, by squared distance, for many vectors: the search of training and of k-means. */
import type { Arena } from "./blocks.js";
import { LANES, runBlocks } from "./blocks.js";

/** Multiplications: about 100 microseconds. */
const WORTH_A_THREAD = 2 ** 20;

export class NearestSearch {
  readonly #arena: Arena;
  readonly #table: number;
  readonly #scores: number;
  /** [block][16] indices of the last search, int32. */
  readonly codes: number;

  /** `entries` is a multiple of 16; `d` is 4 or 8; searches take up to `capacity` blocks of vectors. */
  constructor(
    arena: Arena,
    readonly entries: number,
    readonly d: number,
    capacity: number,
  ) {
    this.#arena = arena;
    this.#table = arena.words(entries * (d + 1));
    this.#scores = arena.words(16 * capacity);
    this.codes = arena.words(16 * capacity);
  }

  /** Takes over a codebook [entries, d]. */
  setCodebook(codebook: Float32Array): void {
    const { d, entries } = this;
    const table = this.#arena.runtime.f32(this.#table, entries * (d + 1));
    for (let entry = 0, from = 0, to = 0; entry < entries; entry++) {
      let squares = 0;
      for (let i = 0; i < d; i++) {
        const value = codebook[from++];
        table[to++] = value;
        squares += value * value;
      }
      table[to++] = -squares / 2;
    }
  }

  /** Fills `codes` for vectors [block][d][16] at `vectors`. Ties go to the lowest index. */
  search(vectors: number, blocks: number): void {
    const { entries, d } = this;
    runBlocks(
      this.#arena.runtime,
      "metaNearest",
      blocks,
      (_, first, end) => [vectors, this.#table, entries, d, this.codes, this.#scores, first, end],
      WORTH_A_THREAD / (LANES * entries * d),
    );
  }

  /** The indices of the last search, of its first `count` vectors. */
  readCodes(count: number): Int32Array {
    return this.#arena.runtime.i32(this.codes, count).slice();
  }
}
