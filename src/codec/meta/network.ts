/**
 * The MLP stack that encoder and decoder are, in plain TypeScript and double precision: its parameters' order,
 * their initial values, and the forward pass. This forward pass is the definition that decoding uses;
 * training runs the kernels (stack.ts).
 *
 * One block maps a sub-vector h [d] to W2 gelu(W1 u + b1) + b2, plus h in every block but the first, where
 * u = (h - mean) / sqrt(variance + 1e-5) * weight + bias (RLN), with mean and variance (population) over all
 * numbers of the sub-vector's group; u = h with rln "off".
 */

import type { Random } from "../../random.js";
import { gelu } from "./gelu.js";
import type { Groups } from "./groups.js";
import type { MetaShape } from "./options.js";

export const RLN_EPSILON = 1e-5;

/**
 * Offsets into one block's parameters. A stack's parameters are its blocks in order; with rln "off" the
 * norm's weight and bias are there in training as constants 1 and 0, and left out of what is stored.
 */
export function blockLayout({ d, hidden }: Pick<MetaShape, "d" | "hidden">) {
  const w1 = 2 * d;
  const b1 = w1 + d * hidden;
  const w2 = b1 + hidden;
  const b2 = w2 + d * hidden;
  return { normWeight: 0, normBias: d, w1, b1, w2, b2, length: b2 + d };
}

/**
 * Initial values with which the stack passes its (normalised) input through unchanged; the paper names none.
 * First layers are uniform in ±1/sqrt(d), as usual, and second layers 0, but that the plain first block holds the
 * identity, as gelu(x) - gelu(-x) = x. From the usual random second layers some seeds lose a dimension of the
 * sub-vector in the first block and never find it again: SmolLM2 q_proj, d 8, k 4096 ended at 0.12 or at 0.19;
 * from these, all end at 0.12. With hidden < 2 d the first block's second layer is random after all.
 */
export function initialParameters(shape: MetaShape, random: Random): Float32Array {
  const { d, hidden, blocks } = shape;
  const layout = blockLayout(shape);
  const out = new Float32Array(blocks * layout.length);
  const randomise = (first: number, end: number, range: number) => {
    for (let i = first; i < end; i++) out[i] = range * (2 * random.uniform() - 1);
  };
  for (let block = 0; block < blocks; block++) {
    const base = block * layout.length;
    out.fill(1, base, base + d);
    randomise(base + layout.w1, base + layout.w2, 1 / Math.sqrt(d));
  }
  if (hidden < 2 * d) {
    randomise(layout.w2, layout.length, 1 / Math.sqrt(hidden));
    return out;
  }
  for (let i = 0; i < d; i++) {
    for (const [j, sign] of [
      [2 * i, 1],
      [2 * i + 1, -1],
    ]) {
      const row = layout.w1 + j * d;
      out.fill(0, row, row + d);
      out[row + i] = sign;
      out[layout.b1 + j] = 0;
      out[layout.w2 + i * hidden + j] = sign;
    }
  }
  return out;
}

/** Training parameters -> stored numbers: without the constant norms of rln "off". */
export function toStored(shape: MetaShape, parameters: Float32Array): Float32Array {
  if (shape.rln !== "off") return parameters.slice();
  const { length, w1 } = blockLayout(shape);
  const out = new Float32Array(shape.blocks * (length - w1));
  for (let block = 0; block < shape.blocks; block++)
    out.set(parameters.subarray(block * length + w1, (block + 1) * length), block * (length - w1));
  return out;
}

/** The inverse of `toStored`. */
export function fromStored(shape: MetaShape, stored: Float32Array): Float32Array {
  if (shape.rln !== "off") return stored.slice();
  const { length, w1 } = blockLayout(shape);
  const out = new Float32Array(shape.blocks * length);
  for (let block = 0; block < shape.blocks; block++) {
    out.fill(1, block * length, block * length + shape.d);
    out.set(stored.subarray(block * (length - w1), (block + 1) * (length - w1)), block * length + w1);
  }
  return out;
}

/** Applies the stack to sub-vectors h [n, d] in place. `groups` indexes the n sub-vectors; unused with rln "off". */
export function forward(shape: MetaShape, parameters: Float32Array, h: Float64Array, groups: Groups): void {
  const { d, hidden, blocks, rln } = shape;
  const layout = blockLayout(shape);
  const count = h.length / d;
  const u = new Float64Array(d);
  const a = new Float64Array(hidden);
  for (let block = 0; block < blocks; block++) {
    const p = Float64Array.from(parameters.subarray(block * layout.length, (block + 1) * layout.length));
    const apply = (vector: number, mean: number, inverse: number) => {
      const at = vector * d;
      for (let i = 0; i < d; i++) u[i] = (h[at + i] - mean) * inverse * p[i] + p[d + i];
      for (let j = 0; j < hidden; j++) {
        let sum = p[layout.b1 + j];
        const row = layout.w1 + j * d;
        for (let i = 0; i < d; i++) sum += p[row + i] * u[i];
        a[j] = gelu(sum);
      }
      for (let i = 0; i < d; i++) {
        let sum = p[layout.b2 + i] + (block > 0 ? h[at + i] : 0);
        const row = layout.w2 + i * hidden;
        for (let j = 0; j < hidden; j++) sum += p[row + j] * a[j];
        h[at + i] = sum;
      }
    };
    if (rln === "off") {
      for (let vector = 0; vector < count; vector++) apply(vector, 0, 1);
      continue;
    }
    const { members, starts } = groups;
    for (let group = 0; group + 1 < starts.length; group++) {
      const vectors = members.subarray(starts[group], starts[group + 1]);
      const { mean, inverse } = groupMoments(h, d, vectors);
      for (const vector of vectors) apply(vector, mean, inverse);
    }
  }
}

/** Mean and 1/sqrt(variance + epsilon) over all numbers of some sub-vectors. */
function groupMoments(h: Float64Array, d: number, vectors: Int32Array) {
  let sum = 0;
  for (const vector of vectors) for (let i = 0; i < d; i++) sum += h[vector * d + i];
  const mean = sum / (vectors.length * d);
  let squares = 0;
  for (const vector of vectors) for (let i = 0; i < d; i++) squares += (h[vector * d + i] - mean) ** 2;
  return { mean, inverse: 1 / Math.sqrt(squares / (vectors.length * d) + RLN_EPSILON) };
}
