/** Coded layers as Linears on a backend, and decoded to dense weights. */
import type { Backend } from "../compute/backend.js";
import type { Linear } from "../compute/linear.js";
import { codecOf } from "./codecs.js";
import { type CodedLayer, isTiered } from "./layer.js";
import { TieredLinear, type TierLinear } from "./tiered-linear.js";

/**
 * A coded layer ready to multiply with; codes stay coded where the method allows. `bias` [rows]; `name` is the
 * layer's, for messages. Throws CorruptFileError on impossible parameters or tensors; nothing stays allocated then.
 */
export function codedLinear(
  backend: Backend,
  layer: CodedLayer,
  bias?: Float32Array | undefined,
  name?: string,
): Linear {
  if (!isTiered(layer)) return codecOf(layer).linear(backend, layer, bias, name);
  const tiers: TierLinear[] = [];
  try {
    for (const { rows, matrix } of layer.tiers)
      tiers.push({
        start: rows[0],
        linear: codecOf(matrix).linear(backend, matrix, bias?.subarray(...rows), name),
      });
    return new TieredLinear(backend, tiers);
  } catch (error) {
    for (const { linear } of tiers) linear.free();
    throw error;
  }
}

/** The dense weights [rows, columns] of a coded layer. */
export function decodeLayer(layer: CodedLayer, name?: string): Float32Array {
  if (!isTiered(layer)) return codecOf(layer).decode(layer, name);
  const out = new Float32Array(layer.rows * layer.columns);
  for (const { rows, matrix } of layer.tiers)
    out.set(codecOf(matrix).decode(matrix, name), rows[0] * layer.columns);
  return out;
}
