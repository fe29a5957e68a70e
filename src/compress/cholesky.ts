/** The Cholesky factor of a Hessian on this thread. */
import type { WasmRuntime } from "../compute/wasm/runtime.js";

/** Rows of the panel that the factorisation works with. */
const FACTOR_BLOCK = 64;

/**
 * H = M Mᵀ, M upper triangular, for H [n, n] at `pointer`, which M's upper half overwrites. False when H is not
 * positive definite; what is there then is of no use.
 */
export function factorInPlace(runtime: WasmRuntime, pointer: number, n: number): boolean {
  const panel = runtime.allocate(4 * FACTOR_BLOCK * n);
  const status = runtime.allocate(4);
  runtime.exports["choleskyFactor"](pointer, n, n, panel, status);
  const definite = runtime.i32(status, 1)[0] === 0;
  runtime.free(panel);
  runtime.free(status);
  return definite;
}
