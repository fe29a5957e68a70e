/** The geometric mean of a Hessian's eigenvalues: how much of its inputs' power error feedback cannot avoid. */
import type { WasmBackend } from "../compute/wasm/backend.js";
import { factorInPlace } from "./cholesky.js";

/** Added to the diagonal as a share of its mean, as error feedback does. */
const DAMPING = 0.01;

/** |H + damping|^(1/n) for H = sums / count, [n, n]; 0 for inputs that are always 0. */
export function rootDeterminant(backend: WasmBackend, sums: Float32Array, count: number): number {
  const { runtime } = backend;
  const n = Math.round(Math.sqrt(sums.length));
  let trace = 0;
  for (let i = 0; i < n; i++) trace += sums[i * (n + 1)] / count;
  if (!(trace > 0)) return 0;
  const matrix = runtime.allocate(4 * n * n);
  try {
    // In units of the mean diagonal, so that powers far from 1 do not leave the range of f32.
    const mean = trace / n;
    const view = runtime.f32(matrix, n * n);
    for (let i = 0; i < n * n; i++) view[i] = sums[i] / count / mean;
    for (let i = 0; i < n; i++) view[i * (n + 1)] += DAMPING;
    if (!factorInPlace(runtime, matrix, n)) return mean * DAMPING;
    const factor = runtime.f32(matrix, n * n);
    let logs = 0;
    for (let i = 0; i < n; i++) logs += 2 * Math.log(Math.abs(factor[i * (n + 1)]));
    return mean * Math.exp(logs / n);
  } finally {
    runtime.free(matrix);
  }
}
