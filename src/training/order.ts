/**
 * In which order examples are trained on: all of them, epoch by epoch, shuffled anew for each. The example of
 * a draw follows from the seed and the draw's number alone, so a resumed run needs nothing but that number.
 */
import { Random } from "../random.js";

export class ExampleOrder {
  readonly #count: number;
  readonly #seed: number;
  #epoch = -1;
  #permutation = new Uint32Array(0);

  /** `count` examples, 1 or more; `seed` 0 ... 2^32 - 1. RangeError for other counts. */
  constructor(count: number, seed: number) {
    if (!Number.isInteger(count) || count < 1 || count > 2 ** 32)
      throw new RangeError(`no order of ${count} examples`);
    this.#count = count;
    this.#seed = seed;
  }

  /**
   * The index of the example of draw 0, 1, 2, …: with `batch` examples a step, step s takes draws s * batch to
   * s * batch + batch - 1. Fast for draws of one epoch after each other; each change of epoch shuffles once.
   */
  at(draw: number): number {
    if (!Number.isSafeInteger(draw) || draw < 0) throw new RangeError(`there is no draw ${draw}`);
    const epoch = Math.floor(draw / this.#count);
    if (epoch !== this.#epoch) this.#shuffle(epoch);
    return this.#permutation[draw % this.#count];
  }

  #shuffle(epoch: number): void {
    this.#permutation = Uint32Array.from({ length: this.#count }, (_, i) => i);
    // Hashed twice: plain sums of seed and epoch give sequences that are pieces of each other.
    const mixed = new Random((new Random(this.#seed).next() ^ epoch) >>> 0).next();
    new Random(mixed).shuffle(this.#permutation);
    this.#epoch = epoch;
  }
}
