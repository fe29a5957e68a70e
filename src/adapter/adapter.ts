/**
 * A LoRA adapter as numbers: for some matrices of a model a pair of small ones, whose product is added to them.
 * How it lies on disk is peft-config.ts and stored.ts.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { LowRankPair } from "../compute/adapted-linear.js";
import { LAYER_LINEARS, layerLinears } from "../transformer/weights.js";

export interface Adapter {
  readonly rank: number;
  /** What B A is multiplied by: alpha / rank, or alpha / sqrt(rank) for rank-stabilised adapters. */
  readonly scale: number;
  /** By name of the matrix: "model.layers.0.self_attn.q_proj". */
  readonly pairs: ReadonlyMap<string, LowRankPair>;
}

/** The matrices of a model that can have an adapter, in the order of the model, each [outputs, inputs]. */
export function adaptableMatrices(
  config: ModelConfig,
): Map<string, readonly [outputs: number, inputs: number]> {
  const matrices = new Map<string, readonly [number, number]>();
  for (let index = 0; index < config.layers; index++) {
    const specs = layerLinears(config, index);
    for (const kind of LAYER_LINEARS) {
      const { name, outputs, inputs } = specs[kind];
      matrices.set(name, [outputs, inputs]);
    }
  }
  return matrices;
}

/** weight [outputs, inputs] += scale B A, in place, each element summed in double precision. */
export function mergePair(weight: Float32Array, { rank, a, b }: LowRankPair, scale: number): void {
  const inputs = a.length / rank;
  const sums = new Float64Array(inputs);
  for (let row = 0; row < b.length / rank; row++) {
    sums.fill(0);
    for (let i = 0; i < rank; i++) {
      const factor = scale * b[row * rank + i];
      for (let c = 0; c < inputs; c++) sums[c] += factor * a[i * inputs + c];
    }
    for (let c = 0; c < inputs; c++) weight[row * inputs + c] += sums[c];
  }
}
