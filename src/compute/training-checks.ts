/**
 * Checks of the arguments of training operations, shared by all implementations as checks.ts is by all
 * backends. RangeError for buffers that are too short and numbers out of range.
 */
import type { Buffer } from "./backend.js";
import { checkAttention, checkIds, checkLength } from "./checks.js";
import type {
  AdamWOptions,
  AttentionBackwardOptions,
  MatmulBackwardInputOptions,
  MatmulBackwardWeightOptions,
  RmsNormBackwardOptions,
  TrainingBackend,
} from "./training.js";

export function checkMatmulBackwardInput(options: MatmulBackwardInputOptions): void {
  const { dy, weight, dx, tokens, inputs, outputs } = options;
  checkLength("matmulBackwardInput dy", dy, tokens * outputs);
  checkLength("matmulBackwardInput weight", weight, outputs * inputs);
  checkLength("matmulBackwardInput dx", dx, tokens * inputs);
}

export function checkMatmulBackwardWeight(options: MatmulBackwardWeightOptions): void {
  const { dy, x, dWeight, tokens, inputs, outputs } = options;
  checkLength("matmulBackwardWeight dy", dy, tokens * outputs);
  checkLength("matmulBackwardWeight x", x, tokens * inputs);
  checkLength("matmulBackwardWeight dWeight", dWeight, outputs * inputs);
}

export function checkRmsNormBackward(options: RmsNormBackwardOptions): void {
  const { x, weight, dy, dx, dWeight, rows, columns } = options;
  checkLength("rmsNormBackward x", x, rows * columns);
  checkLength("rmsNormBackward weight", weight, columns);
  checkLength("rmsNormBackward dy", dy, rows * columns);
  checkLength("rmsNormBackward dx", dx, rows * columns);
  if (dWeight) checkLength("rmsNormBackward dWeight", dWeight, columns);
}

export function checkAttentionBackward(options: AttentionBackwardOptions): void {
  const { dy, dQuery, dKeys, dValues, tokens, heads, kvHeads, headSize } = options;
  checkAttention({ ...options, position: 0 });
  checkLength("attentionBackward dy", dy, tokens * heads * headSize);
  checkLength("attentionBackward dQuery", dQuery, tokens * heads * headSize);
  checkLength("attentionBackward dKeys", dKeys, tokens * kvHeads * headSize);
  checkLength("attentionBackward dValues", dValues, tokens * kvHeads * headSize);
}

export function checkSiluMultiplyBackward(
  options: Parameters<TrainingBackend["siluMultiplyBackward"]>[0],
): void {
  for (const name of ["gate", "up", "dy", "dGate", "dUp"] as const)
    checkLength(`siluMultiplyBackward ${name}`, options[name], options.length);
}

export function checkColumnDots(
  a: Buffer,
  b: Buffer | undefined,
  sum: Buffer,
  rows: number,
  columns: number,
): void {
  checkLength("columnDots a", a, rows * columns);
  if (b) checkLength("columnDots b", b, rows * columns);
  checkLength("columnDots sum", sum, columns);
}

export function checkCrossEntropy(options: Parameters<TrainingBackend["crossEntropy"]>[0]): void {
  const { logits, targets, loss, rows, columns } = options;
  checkLength("crossEntropy logits", logits, rows * columns);
  checkLength("crossEntropy targets", targets, rows);
  checkLength("crossEntropy loss", loss, rows);
  for (const target of targets)
    if (target < -1 || target >= columns) throw new RangeError(`crossEntropy: ${target} of ${columns}`);
}

export function checkDivergence(options: Parameters<TrainingBackend["divergence"]>[0]): void {
  const { reference, logits, loss, rows, columns } = options;
  checkLength("divergence reference", reference, rows * columns);
  checkLength("divergence logits", logits, rows * columns);
  checkLength("divergence loss", loss, rows);
}

export function checkScatterAdd(dTable: Buffer, ids: Int32Array, columns: number, dy: Buffer): void {
  checkIds(ids, Math.floor(dTable.length / columns));
  checkLength("scatterAdd dy", dy, ids.length * columns);
}

export function checkAdamW(options: AdamWOptions): void {
  for (const name of ["parameter", "gradient", "mean", "square"] as const)
    checkLength(`adamW ${name}`, options[name], options.length);
}
