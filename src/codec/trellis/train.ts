/**
 * Tables for a map: least squares between Viterbi searches (Lloyd's iteration; the weights are linear in the
 * tables). On unit Gaussians it gives the default tables, as bench/trellis-search.mjs does.
 */
import type { WasmRuntime } from "../../compute/wasm/runtime.js";
import type { Random } from "../../random.js";
import type { CodeBits } from "./code.js";
import { createCodebook } from "./codebook.js";
import type { WindowMap } from "./schedule.js";
import { searchCodes } from "./viterbi.js";

/** [width][rows] independent unit Gaussians. */
export function gaussians(rows: number, width: number, random: Random): Float32Array {
  return Float32Array.from({ length: rows * width }, () => random.normal());
}

/** Tables (A, then B) that minimise |targets - A[u & 15] - B[u >> 4]|²; targets [width][rows], bytes u [rows]. */
export function fitTables(bytes: Uint8Array, targets: Float32Array, width: number): Float32Array {
  const rows = bytes.length;
  const normal = new Float64Array(32 * 32);
  const right = new Float64Array(32 * width);
  for (let r = 0; r < rows; r++) {
    const a = bytes[r] & 15;
    const b = 16 + (bytes[r] >> 4);
    normal[33 * a]++;
    normal[33 * b]++;
    normal[32 * a + b]++;
    normal[32 * b + a]++;
    for (let v = 0; v < width; v++) {
      right[a * width + v] += targets[v * rows + r];
      right[b * width + v] += targets[v * rows + r];
    }
  }
  // A constant may move from A to B, so the equations are singular: a ridge of a hundredth of a sample.
  for (let i = 0; i < 32; i++) normal[33 * i] += 0.01;
  return Float32Array.from(solve(normal, right, width));
}

/** Solves a positive definite system of order 32 by elimination, in place. */
function solve(matrix: Float64Array, right: Float64Array, width: number): Float64Array {
  for (let c = 0; c < 32; c++) {
    for (let i = c + 1; i < 32; i++) {
      const factor = matrix[32 * i + c] / matrix[33 * c];
      for (let j = c; j < 32; j++) matrix[32 * i + j] -= factor * matrix[32 * c + j];
      for (let v = 0; v < width; v++) right[i * width + v] -= factor * right[c * width + v];
    }
  }
  for (let c = 31; c >= 0; c--) {
    for (let v = 0; v < width; v++) {
      let sum = right[c * width + v];
      for (let j = c + 1; j < 32; j++) sum -= matrix[32 * c + j] * right[j * width + v];
      right[c * width + v] = sum / matrix[33 * c];
    }
  }
  return right;
}

/** Mean squared error of targets [width][rows] coded by the bytes of their windows. */
export function meanSquaredError(bytes: Uint8Array, targets: Float32Array, tables: Float32Array): number {
  const width = tables.length / 32;
  const rows = bytes.length;
  let sum = 0;
  for (let v = 0; v < width; v++) {
    for (let r = 0; r < rows; r++) {
      const u = bytes[r];
      const value = tables[(u & 15) * width + v] + tables[(16 + (u >> 4)) * width + v];
      sum += (targets[v * rows + r] - value) ** 2;
    }
  }
  return sum / targets.length;
}

export interface TrainOptions {
  readonly map: WindowMap;
  readonly codeBits: CodeBits;
  readonly width: number;
  /** Samples (rows) of each round; fresh ones every round. */
  readonly rows: number;
  readonly rounds: number;
  readonly random: Random;
  /** Start from these. Default: random. */
  readonly tables?: Float32Array;
}

/** Tables trained on unit Gaussians, one long sequence a round. */
export function trainTables(
  runtime: WasmRuntime,
  { map, codeBits, width, rows, rounds, random, tables }: TrainOptions,
): Float32Array {
  // Sums of two of these have a variance of 0.82, near that of the codewords of a good code.
  let current = tables ?? Float32Array.from({ length: 32 * width }, () => 0.64 * random.normal());
  const expected = 1.2 * 4 ** (-codeBits / width);
  for (let round = 0; round < rounds; round++) {
    const targets = gaussians(rows, width, random);
    const codebook = createCodebook(map, codeBits, current, expected);
    current = fitTables(searchCodes(runtime, { targets, rows, codebook }).bytes, targets, width);
  }
  return current;
}
