/**
 * The factor of a layer's Hessian H = E[x xᵀ] that error feedback works with: H rotated like the weights'
 * input side, damped, H = M Mᵀ with M upper triangular. Matrices that share an input can share one.
 */
import type { WasmRuntime } from "../../compute/wasm/runtime.js";
import { InputError } from "../../errors.js";
import { createRotation } from "../rotation.js";
import { planeStride, Scratch } from "./scratch.js";

/** Rounding can make a nearly singular Hessian indefinite: damping is raised tenfold up to this. */
const MAX_DAMPING = 10;

export interface FactorOptions {
  /** [columns, columns], symmetric, of the unrotated inputs. */
  readonly hessian: Float32Array;
  readonly columns: number;
  /** Seed of the weights' rotation. */
  readonly seed: number;
  /** Added to the diagonal, as a share of its mean. Default 0.01. */
  readonly damping?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export class FactoredHessian {
  readonly #scratch: Scratch;

  private constructor(
    scratch: Scratch,
    /** Address of M [columns][stride], f32; 0 stands for the identity (an input that is always 0). */
    readonly pointer: number,
    readonly stride: number,
    readonly columns: number,
    readonly seed: number,
    /** What was added to the diagonal. */
    readonly added: number,
  ) {
    this.#scratch = scratch;
  }

  /** Throws InputError if the Hessian has the wrong size or is not finite. */
  static async create(runtime: WasmRuntime, options: FactorOptions): Promise<FactoredHessian> {
    const { hessian, columns, seed, signal } = options;
    if (hessian.length !== columns * columns)
      throw new InputError(
        `a Hessian of ${hessian.length} numbers does not fit a matrix of ${columns} columns`,
      );
    let mean = 0;
    for (let i = 0; i < columns; i++) mean += hessian[i * (columns + 1)] / columns;
    if (!Number.isFinite(mean) || mean < 0)
      throw new InputError("the Hessian of the calibration inputs is not finite");
    const stride = planeStride(columns);
    const scratch = new Scratch(runtime);
    if (mean === 0) return new FactoredHessian(scratch, 0, stride, columns, seed, 0);
    try {
      const pointer = scratch.bytes(4 * columns * stride);
      const damping = await factorInto(runtime, pointer, stride, options, mean);
      return new FactoredHessian(scratch, pointer, stride, columns, seed, damping * mean);
    } catch (error) {
      scratch.free();
      signal?.throwIfAborted();
      throw error;
    }
  }

  free(): void {
    this.#scratch.free();
  }
}

/** Returns the damping that was used. */
async function factorInto(
  runtime: WasmRuntime,
  pointer: number,
  stride: number,
  { hessian, columns, seed, damping = 0.01, signal }: FactorOptions,
  mean: number,
): Promise<number> {
  const rotation = createRotation(columns, seed);
  const scratch = new Scratch(runtime);
  try {
    const signs = scratch.floats(rotation.signs);
    const q = scratch.floats(rotation.q);
    const strips = scratch.bytes(2 * 4 * 16 * columns);
    const panel = scratch.bytes(4 * 64 * stride);
    const status = scratch.bytes(4);
    const rotate = [pointer, columns, stride, stride, signs, q, rotation.m, strips];
    for (let share = damping; share <= MAX_DAMPING; share = Math.max(10 * share, 1e-4)) {
      const plane = runtime.f32(pointer, columns * stride);
      for (let i = 0; i < columns; i++)
        plane.set(hessian.subarray(i * columns, (i + 1) * columns), i * stride);
      // R H Rᵀ = (R (R H)ᵀ)ᵀ, and it is symmetric.
      await runtime.submit("rotateColumns", rotate, signal);
      await runtime.submit("transposeInPlace", [pointer, columns, stride], signal);
      await runtime.submit("rotateColumns", rotate, signal);
      const rotated = runtime.f32(pointer, columns * stride);
      for (let i = 0; i < columns; i++) rotated[i * (stride + 1)] += share * mean;
      await runtime.submit("choleskyFactor", [pointer, columns, stride, panel, status], signal);
      if (runtime.i32(status, 1)[0] === 0) return share;
    }
    throw new InputError(
      "the Hessian of the calibration inputs is not positive definite; calibrate on more text",
    );
  } finally {
    scratch.free();
  }
}
