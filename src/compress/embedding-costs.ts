/**
 * What an error in a row of the embedding costs, by its direction. The row is used up to twice: looked up, it
 * is what a token starts from, and an error e costs ½ E[(g · e)²] with g the gradient there; as a row of a tied
 * head it costs ½ E[dy²] E[(x · e)²] with x the head's input. Error feedback gets the sum, tier by tier: for
 * rare tokens of SmolLM2-135M looking up is two thirds of it, and feedback for the head alone made these errors
 * 1.3 (at 1 bit) to 1.8 times (at 4 bits) as large as without feedback.
 */
import { tierRows } from "./plan.js";

export interface EmbeddingCosts {
  /** Means over the rows of each tier, weighted by their power: E[dy²] of the tied head (else 0), E|g|². */
  readonly tiers: readonly { readonly scored: number; readonly looked: number }[];
  /** E[g gᵀ] of all rows together, [columns, columns]; its trace is 1, or 0 where there are no gradients. */
  readonly gradients: Float32Array;
}

/** Of each row: mean square of its weights, mean |g|² of a token, mean dy² where it is a row of the head too. */
interface RowMeasurements {
  readonly powers: Float64Array;
  readonly looked: Float64Array;
  readonly scored: Float64Array | undefined;
  /** Σ g gᵀ of the rows, [columns, columns] */
  readonly gradients: Float32Array;
}

export function embeddingCosts({ powers, looked, scored, gradients }: RowMeasurements): EmbeddingCosts {
  const columns = Math.sqrt(gradients.length);
  let trace = 0;
  for (let i = 0; i < columns; i++) trace += gradients[i * (columns + 1)];
  const tiers = tierRows(powers.length).map(([first, end]) => {
    const sums = { power: 0, looked: 0, scored: 0 };
    for (let r = first; r < end; r++) {
      sums.power += powers[r];
      sums.looked += powers[r] * looked[r];
      if (scored) sums.scored += powers[r] * scored[r];
    }
    const mean = (sum: number) => (sums.power > 0 ? sum / sums.power : 0);
    return { scored: mean(sums.scored), looked: mean(sums.looked) };
  });
  return { tiers, gradients: gradients.map((x) => (trace > 0 ? x / trace : 0)) };
}

/** M of a tier: an error e costs ½ e M eᵀ. `inputs`: E[x xᵀ] of a tied head, [columns, columns]. */
export function tierHessian(
  { tiers, gradients }: EmbeddingCosts,
  tier: number,
  inputs: Float32Array | undefined,
): Float32Array {
  const { scored, looked } = tiers[tier];
  return gradients.map((x, i) => looked * x + (inputs ? scored * inputs[i] : 0));
}
