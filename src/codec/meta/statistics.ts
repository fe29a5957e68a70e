/**
 * Mean and 1/sigma of the weights of each RLN group (or of the whole matrix), as they are stored: the network
 * codes (w - mean) / sigma and its output is scaled back, w = mean + y * sigma.
 */
import { f16ToNumber, numberToF16 } from "../../tensor/dtype.js";
import type { Groups } from "./groups.js";
import type { MetaShape } from "./options.js";

/** Largest half-precision number: 1/sigma of a constant group, whose weights then come out as their mean. */
const MAX_F16 = 65504;
/** Smallest normal half: sigmas above 16384 are taken for 16384. */
const MIN_INVERSE = 2 ** -14;

export interface Statistics {
  /** [pairs, 2]: mean, 1/sigma; values that half precision holds exactly. */
  readonly pairs: Float32Array;
  /** For every sub-vector its pair. */
  readonly pairOf: Int32Array;
}

/** For every sub-vector the index of its pair of statistics. */
export function pairIndices(shape: MetaShape, groups: Groups): Int32Array {
  const { members, starts } = groups;
  const out = new Int32Array(members.length);
  if (shape.rln === "off" || !shape.groupScale) return out;
  for (let group = 0; group + 1 < starts.length; group++)
    for (let i = starts[group]; i < starts[group + 1]; i++) out[members[i]] = group;
  return out;
}

/** Statistics of weights [n, d] (sub-vector by sub-vector). */
export function measureStatistics(
  weights: Float32Array,
  shape: MetaShape,
  pairCount: number,
  groups: Groups,
): Statistics {
  const { d } = shape;
  const pairOf = pairIndices(shape, groups);
  const sums = new Float64Array(pairCount);
  const counts = new Float64Array(pairCount);
  for (let i = 0; i < weights.length; i++) sums[pairOf[Math.floor(i / d)]] += weights[i];
  for (const pair of pairOf) counts[pair] += d;
  const squares = new Float64Array(pairCount);
  for (let i = 0; i < weights.length; i++) {
    const pair = pairOf[Math.floor(i / d)];
    squares[pair] += (weights[i] - sums[pair] / counts[pair]) ** 2;
  }
  const pairs = new Float32Array(2 * pairCount);
  for (let pair = 0; pair < pairCount; pair++) {
    const inverse = 1 / Math.sqrt(squares[pair] / counts[pair]);
    pairs[2 * pair] = f16ToNumber(numberToF16(sums[pair] / counts[pair]));
    pairs[2 * pair + 1] = f16ToNumber(numberToF16(Math.min(MAX_F16, Math.max(MIN_INVERSE, inverse))));
  }
  return { pairs, pairOf };
}

/** (w - mean) / sigma of weights [n, d]. */
export function normaliseWeights(weights: Float32Array, d: number, statistics: Statistics): Float32Array {
  const { pairs, pairOf } = statistics;
  return weights.map((weight, i) => {
    const pair = 2 * pairOf[Math.floor(i / d)];
    return (weight - pairs[pair]) * pairs[pair + 1];
  });
}
