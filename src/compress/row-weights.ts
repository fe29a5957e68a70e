/**
 * What errors in each row of a matrix are to count for in the trellis search, from measured costs. The search
 * moves error from rows where it costs much to rows where it costs little; that needs no byte.
 *
 * SmolLM2-135M at 10x, 8,192 calibration tokens, KL on 3 windows of WikiText-2: 1.752 without, 1.683 with weights
 * for the vocabulary, 1.620 for v, o, gate, up and down too. Rows of q and k differ most (by second-order costs
 * weights would leave .45 and .49 of them), but errors of queries and keys multiply, and the rows that cost little
 * on their own are not free: with them too, and bits moved accordingly, KL rose above that without weights.
 */
import type { LayerLinear } from "../transformer/weights.js";

/**
 * `costs` of a unit of squared error in the rows of one tier. A row counts for its cost and the tier's mean:
 * most tokens are not in the text that was measured on. (pocket-stories at 10x without the mean: .516, with: .245.)
 */
export function vocabularyWeights(costs: Float64Array): Float64Array {
  const mean = costs.reduce((sum, cost) => sum + cost, 0) / costs.length;
  return costs.map((cost) => cost + mean);
}

/** The same of a layer's matrix, tempered: costs of few tokens are noisy, and right for small errors only. */
export function layerWeights(kind: LayerLinear, costs: Float64Array): Float64Array | undefined {
  return kind === "q" || kind === "k" ? undefined : costs.map((cost) => cost ** 0.75);
}
