/** Notices that a training run is lost, so that it ends with a reason instead of a useless model. */
import { InputError } from "../errors.js";

export interface DivergenceOptions {
  /** The highest learning rate of the run, for the advice. */
  readonly learningRate: number;
  /** Steps over which the loss is averaged. Default 20. */
  readonly window?: number | undefined;
  /** How many times its best the average may be. Default 3. */
  readonly factor?: number | undefined;
  /** Steps in a row above that which end the run. Default 50. */
  readonly patience?: number | undefined;
}

/**
 * Nats that the average must be above its best besides: a loss near zero (a distilled model that follows its
 * teacher) multiplies by chance.
 */
const MARGIN = 0.5;

/** A resumed run gives it the losses of its state again, in order, and is where it was. */
export class DivergenceGuard {
  readonly #options: Required<{ readonly [K in keyof DivergenceOptions]: number }>;
  readonly #recent: number[] = [];
  #best = Number.POSITIVE_INFINITY;
  #above = 0;
  #heldOut: number | undefined;

  constructor({ learningRate, window = 20, factor = 3, patience = 50 }: DivergenceOptions) {
    this.#options = { learningRate, window, factor, patience };
  }

  /**
   * To be called after each step's gradient and before its update. `step` counts from 0, `loss` is in nats;
   * `gradientNorm` is of the unclipped gradient (0 where it is not known). InputError when either is not
   * finite, or when the average loss has been too high for too long.
   */
  check(step: number, loss: number, gradientNorm: number): void {
    for (const [what, value] of [
      ["loss", loss],
      ["gradient's norm", gradientNorm],
    ] as const) {
      if (Number.isFinite(value)) continue;
      // Nothing was learned before step 0, so the rate cannot be the reason.
      if (step === 0)
        throw new InputError(`the ${what} is ${value} before any training: the model's weights are damaged`);
      throw new InputError(`the ${what} is ${value} at step ${step}: ${this.#advice()}`);
    }
    const { window, factor, patience } = this.#options;
    this.#recent.push(loss);
    if (this.#recent.length > window) this.#recent.shift();
    if (this.#recent.length < window) return;
    // Summed anew: a running sum would depend on what has left the window.
    const mean = this.#recent.reduce((sum, value) => sum + value, 0) / window;
    this.#best = Math.min(this.#best, mean);
    this.#above = mean > factor * this.#best + MARGIN ? this.#above + 1 : 0;
    if (this.#above < patience) return;
    throw new InputError(
      `the loss has risen from ${this.#best.toPrecision(3)} to ${mean.toPrecision(3)} by step ${step} and stays there: ${this.#advice()}`,
    );
  }

  /**
   * To be called with each held-out loss, the first before any step. One that high ends the run at once: it is
   * a mean over many more tokens than a step has. `step` is the last that was taken.
   */
  checkHeldOut(step: number, loss: number): void {
    this.#heldOut ??= loss;
    if (loss <= this.#options.factor * this.#heldOut + MARGIN) return;
    throw new InputError(
      `the held-out loss has risen from ${this.#heldOut.toPrecision(3)} to ${loss.toPrecision(3)} by step ${step}: ${this.#advice()}`,
    );
  }

  #advice(): string {
    const { learningRate } = this.#options;
    return `the learning rate ${learningRate} is too high: try ${Number((learningRate / 10).toPrecision(2))}`;
  }
}
