// Dense y = x wᵀ + bias for one thread's range of outputs.

import { multiplyTransposed } from "./gemm";
import { f32Bytes } from "./vector";

/** Outputs first .. end - 1. `bias` [outputs] or 0. */
export function matmul(
  x: usize,
  weight: usize,
  bias: usize,
  y: usize,
  tokens: i32,
  inputs: i32,
  outputs: i32,
  first: i32,
  end: i32,
): void {
  const xStride = f32Bytes(inputs);
  const yStride = f32Bytes(outputs);
  const to = y + f32Bytes(first);
  if (bias) {
    const from = bias + f32Bytes(first);
    for (let t = 0; t < tokens; t++) memory.copy(to + <usize>t * yStride, from, f32Bytes(end - first));
  }
  const w = weight + <usize>first * xStride;
  multiplyTransposed(x, xStride, w, xStride, to, yStride, tokens, inputs, end - first, bias != 0);
}
