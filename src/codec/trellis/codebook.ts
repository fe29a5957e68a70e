/**
 * The codebook of one group width: a map and two tables of 16 V-vectors, A then B, which together stand for
 * 256 codewords A[u & 15] + B[u >> 4].
 */
import type { CodeBits } from "./code.js";
import { defaultTables } from "./default-tables.js";
import { windowMap } from "./maps.js";
import { createSchedule, type Schedule, type WindowMap } from "./schedule.js";

export interface Codebook {
  readonly codeBits: CodeBits;
  readonly width: number;
  readonly schedule: Schedule;
  /** A [16][width], then B [16][width]. */
  readonly tables: Float32Array;
  /** Mean squared error of a weight on unit Gaussians, about. */
  readonly distortion: number;
}

/** The default codebook, of the split maps. */
export function defaultCodebook(codeBits: CodeBits, width: number): Codebook {
  const { tables, distortion } = defaultTables(codeBits, width);
  return {
    codeBits,
    width,
    schedule: createSchedule(windowMap(codeBits, width, "split"), codeBits),
    tables,
    distortion,
  };
}

export function createCodebook(
  map: WindowMap,
  codeBits: CodeBits,
  tables: Float32Array,
  distortion: number,
): Codebook {
  return {
    codeBits,
    width: tables.length / 32,
    schedule: createSchedule(map, codeBits),
    tables,
    distortion,
  };
}

/** [4][256] codewords in the order of the Viterbi kernel's distances. */
export function orderedCodewords({ tables, width, schedule }: Codebook): Float32Array {
  const out = new Float32Array(4 * 256);
  schedule.order.forEach((u, index) => {
    for (let v = 0; v < width; v++)
      out[v * 256 + index] = tables[(u & 15) * width + v] + tables[(16 + (u >> 4)) * width + v];
  });
  return out;
}
