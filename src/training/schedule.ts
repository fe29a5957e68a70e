/** The learning rate over a run: a linear warm-up, then a half cosine down to a floor. */
import { UsageError } from "../errors.js";

export interface ScheduleOptions {
  /** The highest rate, reached at the end of the warm-up. */
  readonly learningRate: number;
  /** Steps of the whole run. */
  readonly steps: number;
  /** Default: 3% of the steps, as Alpaca was trained with, rounded up. */
  readonly warmupSteps?: number | undefined;
  /** The rate of the last step as a share of the highest, 0 ... 1. Default 0.1. */
  readonly floor?: number | undefined;
}

/**
 * The learning rate of step 0 ... steps - 1; later steps keep that of the last. UsageError when the rate is not
 * a positive number, the steps are no positive whole number, the warm-up is no whole number or longer than the
 * run, or the floor is not a share.
 */
export function createSchedule(options: ScheduleOptions): (step: number) => number {
  const { learningRate, steps, floor = 0.1 } = options;
  const positive = Number.isFinite(learningRate) && learningRate > 0;
  if (!positive) throw new UsageError(`the learning rate must be a positive number, not ${learningRate}`);
  if (!Number.isSafeInteger(steps) || steps < 1)
    throw new UsageError(`the number of steps must be a positive whole number, not ${steps}`);
  const { warmupSteps = Math.ceil(0.03 * steps) } = options;
  if (!Number.isSafeInteger(warmupSteps) || warmupSteps < 0)
    throw new UsageError(`the warm-up must be a whole number of steps, not ${warmupSteps}`);
  if (warmupSteps > steps)
    throw new UsageError(`a warm-up of ${warmupSteps} steps is longer than the whole run of ${steps}`);
  if (!(floor >= 0 && floor <= 1))
    throw new UsageError(`the floor of the learning rate must be a share from 0 to 1, not ${floor}`);
  return (step) => {
    if (!Number.isSafeInteger(step) || step < 0) throw new RangeError(`there is no step ${step}`);
    // Step 0 learns already: a rate of 0 would waste it.
    if (step < warmupSteps) return (learningRate * (step + 1)) / warmupSteps;
    const descent = Math.max(1, steps - 1 - warmupSteps);
    const progress = Math.min(1, (step - warmupSteps) / descent);
    return learningRate * (floor + ((1 - floor) * (1 + Math.cos(Math.PI * progress))) / 2);
  };
}
