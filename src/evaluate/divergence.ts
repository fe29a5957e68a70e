/**
 * How far a model's predictions are from a reference model's: Kullback-Leibler divergence
 * KL(reference || model) of the next-token distributions in nats, position by position, how often both have
 * the same most likely token, and the change of the true token's probability.
 */
import { expNonPositive } from "../exp.js";
import { addValue, type Moments, mean, noMoments, standardError } from "./moments.js";

/** One position of both models. */
export interface RowComparison {
  /** KL(reference || model) in nats, at least 0. */
  readonly divergence: number;
  readonly sameTop: boolean;
  /** log-sum-exp of each row, so that a token's log-likelihood is its logit minus this. */
  readonly referenceLogSum: number;
  readonly modelLogSum: number;
}

/** Compares two rows of logits of one length, in float64. */
export function compareRows(reference: Float32Array, model: Float32Array): RowComparison {
  let referenceTop = 0;
  let modelTop = 0;
  for (let i = 1; i < reference.length; i++) {
    if (reference[i] > reference[referenceTop]) referenceTop = i;
    if (model[i] > model[modelTop]) modelTop = i;
  }
  const referenceMax = reference[referenceTop];
  const modelMax = model[modelTop];
  let referenceSum = 0;
  let modelSum = 0;
  let weighted = 0;
  for (let i = 0; i < reference.length; i++) {
    const r = reference[i] - referenceMax;
    const m = model[i] - modelMax;
    const p = expNonPositive(r);
    referenceSum += p;
    modelSum += expNonPositive(m);
    weighted += p * (r - m);
  }
  // sum p (log p - log q) with p = exp(r) / R and q = exp(m) / M; rounding may take it below 0 by 1e-16.
  const divergence = weighted / referenceSum - Math.log(referenceSum) + Math.log(modelSum);
  return {
    divergence: Math.max(0, divergence),
    sameTop: referenceTop === modelTop,
    referenceLogSum: referenceMax + Math.log(referenceSum),
    modelLogSum: modelMax + Math.log(modelSum),
  };
}

/** Nats. Percentiles interpolate between the two nearest positions. */
export interface DivergenceSummary {
  readonly mean: number;
  /** Standard error of the mean; null for a single position. */
  readonly stderr: number | null;
  readonly median: number;
  readonly p90: number;
  readonly p99: number;
  readonly max: number;
}

/** Summary of the divergences of at least one position; the array is sorted in place. */
export function summarise(divergences: Float64Array): DivergenceSummary {
  divergences.sort();
  const moments = noMoments();
  for (const d of divergences) addValue(moments, d);
  return {
    mean: mean(moments),
    stderr: standardError(moments),
    median: quantile(divergences, 0.5),
    p90: quantile(divergences, 0.9),
    p99: quantile(divergences, 0.99),
    max: divergences[divergences.length - 1],
  };
}

/**
 * Δp: probability of the token that really follows under the model minus that under the reference, from -1 to
 * 1 (llama.cpp prints it in percent). Root mean square beside the mean, where gains and losses cancel.
 */
export interface ProbabilityChange {
  readonly mean: number;
  readonly stderr: number | null;
  readonly rms: number;
}

export function summariseChange(changes: Moments): ProbabilityChange {
  return {
    mean: mean(changes),
    stderr: standardError(changes),
    rms: Math.sqrt(changes.squares / changes.count),
  };
}

/** Linear interpolation between the two nearest order statistics. */
function quantile(sorted: Float64Array, q: number): number {
  const at = q * (sorted.length - 1);
  const below = Math.floor(at);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (at - below) * (sorted[above] - sorted[below]);
}
