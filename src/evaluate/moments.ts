/** The mean of many values with its standard error, from sums in float64. */

/** Number, sum and sum of squares of some values: all that mean and standard error need. */
export interface Moments {
  count: number;
  sum: number;
  squares: number;
}

export function noMoments(): Moments {
  return { count: 0, sum: 0, squares: 0 };
}

export function addValue(moments: Moments, value: number): void {
  moments.count++;
  moments.sum += value;
  moments.squares += value * value;
}

export function addMoments(moments: Moments, { count, sum, squares }: Moments): void {
  moments.count += count;
  moments.sum += sum;
  moments.squares += squares;
}

export function mean({ count, sum }: Moments): number {
  return sum / count;
}

/**
 * Standard error of the mean, with the sample's deviation (count - 1), as lm-evaluation-harness and llama.cpp
 * give it; values that follow each other in a text are taken as independent, which they are not quite. Null
 * for fewer than two values.
 */
export function standardError({ count, sum, squares }: Moments): number | null {
  if (count < 2) return null;
  const variance = squares / count - (sum / count) ** 2;
  return Math.sqrt(Math.max(0, variance) / (count - 1));
}
