/**
 * What errors in each row of a matrix are to count for in the trellis search, from measured costs, and what the
 * search then makes of them. Weights move error from rows where it costs much to rows where it costs little and
 * need no byte: of the second-order costs of SmolLM2-135M's matrices they leave .45 in q, .49 in k, .80 in up,
 * .81 in v, .87 in gate, .92 in o and .97 in down.
 */
import { WEIGHT_RANGE } from "../codec/trellis/encode.js";

/**
 * Rows of a layer's matrix count for cost^0.75, since costs of few tokens are noisy and right for small errors
 * only. Rows of a vocabulary count for their cost and the mean one: most tokens are not in the text that was
 * measured on. pocket-stories at 10x, KL: .262 all alike, .253 layers only, .239 both, .516 the vocabulary's
 * without the mean.
 */
export type WeightRule = "layer" | "vocabulary";

/** `costs` of the rows of one tier, in nats a token per unit of squared error. */
export function rowWeights(costs: Float64Array, rule: WeightRule): Float64Array {
  if (rule === "layer") return costs.map((cost) => cost ** 0.75);
  const mean = costs.reduce((sum, cost) => sum + cost, 0) / costs.length;
  return costs.map((cost) => cost + mean);
}

/** Measured on Gaussian weights under lognormal search weights, 1 to 3 bits: exponents .56 to .90. */
const SHIFT_EXPONENT = 0.75;

/**
 * The part of the rate's distortion that a search leaves each row with, in units of the row's mean square:
 * (geometric mean of all weights / its weight)^0.75. `weights`: mean square times row weight.
 */
export function errorShares(weights: Float64Array): Float64Array {
  const mean = weights.reduce((sum, w) => sum + w, 0) / weights.length;
  if (!(mean > 0)) return weights.map(() => 1);
  const logarithms = weights.map((w) => Math.log(Math.max(w / mean, 1 / WEIGHT_RANGE)));
  const middle = logarithms.reduce((sum, x) => sum + x, 0) / weights.length;
  return logarithms.map((x) => Math.exp(SHIFT_EXPONENT * (middle - x)));
}
