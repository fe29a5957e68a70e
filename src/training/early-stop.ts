/** When training has stopped to help: the held-out loss no longer falls. */
import { UsageError } from "../errors.js";

/** A loss on the held-out examples. */
export interface Measurement {
  /** The step after which it was measured, from 0. */
  readonly step: number;
  /** Mean nats of a scored token. */
  readonly loss: number;
}

export interface EarlyStopOptions {
  /** Measurements in a row without improvement that end the run. Default 3. */
  readonly patience?: number | undefined;
  /** Measurements before this step do not count: at a high learning rate the loss says little. Default 0. */
  readonly from?: number | undefined;
  /** Nats by which a measurement must be below the last improvement to be one. Default 0. */
  readonly minimumImprovement?: number | undefined;
}

/** A resumed run gives it the measurements of its state again, in order, and is where it was. */
export class EarlyStop {
  readonly #patience: number;
  readonly #from: number;
  readonly #minimumImprovement: number;
  #best: Measurement | null = null;
  #reference = Number.POSITIVE_INFINITY;
  #waited = 0;

  /** UsageError when the patience is no positive whole number or the improvement is negative. */
  constructor({ patience = 3, from = 0, minimumImprovement = 0 }: EarlyStopOptions = {}) {
    if (!Number.isSafeInteger(patience) || patience < 1)
      throw new UsageError(`the patience must be a positive whole number, not ${patience}`);
    if (!(minimumImprovement >= 0 && Number.isFinite(minimumImprovement)))
      throw new UsageError(`the minimum improvement must be zero or more nats, not ${minimumImprovement}`);
    this.#patience = patience;
    this.#from = from;
    this.#minimumImprovement = minimumImprovement;
  }

  /** The lowest loss so far, the first of equal ones: whose parameters to keep. */
  get best(): Measurement | null {
    return this.#best;
  }

  /** Whether the patience is used up. Stays true only while nothing better is added. */
  get stop(): boolean {
    return this.#waited >= this.#patience;
  }

  /** Adds a measurement; true when its loss is the lowest so far. A loss that is not finite is no improvement. */
  add(measurement: Measurement): boolean {
    const { loss } = measurement;
    if (loss < this.#reference - this.#minimumImprovement) {
      // Small gains add up to an improvement: the reference stays until they do.
      this.#reference = loss;
      this.#waited = 0;
    } else if (measurement.step >= this.#from) {
      this.#waited++;
    }
    const better = Number.isFinite(loss) && loss < (this.#best?.loss ?? Number.POSITIVE_INFINITY);
    if (better) this.#best = measurement;
    return better;
  }
}
