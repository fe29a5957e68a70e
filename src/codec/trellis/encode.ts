/**
 * The trellis encoder: rotates a matrix's input side, divides each row by its RMS, searches the codes of one
 * column group after another with error feedback (kernels/encode/groups.ts), and refits the row scales.
 * Chunks of rows are coded one after another so that the memory needed has a bound; within a chunk
 * everything is one job of one worker, so matrices are coded side by side, and the bytes do not depend on
 * the number of threads.
 */
import type { WasmRuntime } from "../../compute/wasm/runtime.js";
import { InputError } from "../../errors.js";
import type { OnProgress } from "../../progress.js";
import type { CodedMatrix } from "../coded.js";
import { createRotation } from "../rotation.js";
import {
  type CodeBits,
  codeForRate,
  columnGroups,
  cycles,
  distinctWidths,
  type Rate,
  type TrellisCode,
} from "./code.js";
import { type Codebook, defaultCodebook } from "./codebook.js";
import { ChunkEncoder } from "./encode-chunk.js";
import { FactoredHessian } from "./hessian.js";
import { packScales, unpackScales } from "./scales.js";
import { packTrellis } from "./stored.js";

/** By default the planes of weights and errors take 128 MiB each. */
const CHUNK_WEIGHTS = 2 ** 25;
const MINIMUM_CHUNK_ROWS = 1024;
/**
 * Shorter sequences are not made cyclic: the state before the first row takes 2 or 3 of their codes, and the
 * search, which fixes that state first, would do worse than from a fixed state (and fail below 2 or 3 rows).
 */
const MINIMUM_CYCLE = 24;

export interface EncodeTrellisInput {
  /** [rows, columns] = [outputs, inputs] */
  readonly weights: Float32Array;
  readonly rows: number;
  readonly columns: number;
  /**
   * [rows]: what squared error costs in each row, in any one unit. The search moves error from rows where it
   * costs much to rows where it costs little. Default: the same in all rows.
   */
  readonly rowCosts?: Float32Array | undefined;
  /**
   * E[x xᵀ] of the matrix's inputs, [columns, columns], unrotated; or its factor for the same seed, which
   * the caller frees. Default: none, plain squared error.
   */
  readonly hessian?: Float32Array | FactoredHessian | undefined;
  /** Added to the Hessian's diagonal, as a share of its mean. Default 0.01. */
  readonly damping?: number | undefined;
  /** Nominal bits a weight, or a code. */
  readonly rate: Rate | { readonly codeBits: CodeBits; readonly widths: readonly number[] };
  /** Sequences: 1 or 16. Default 1. Matrices of few rows take 1. */
  readonly interleave?: number | undefined;
  /** Default true. Off for matrices of very few rows and for those coded in several chunks. */
  readonly tailBiting?: boolean | undefined;
  /** Seed of the rotation, an unsigned 32-bit integer. Default 0. */
  readonly seed?: number | undefined;
  /** Most weights in the runtime's memory at a time (8 bytes each, beside the Hessian). Default 2^25. */
  readonly chunkWeights?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

export interface EncodedTrellis {
  readonly coded: CodedMatrix;
  /** tr(E H Eᵀ) / tr(W H Wᵀ) with the undamped Hessian; without one, as squaredError. */
  readonly proxyError: number;
  /** |E|² / |W|² */
  readonly squaredError: number;
}

/** Search weights stay within this factor of their mean: costs have 256 levels, and saturate at 16 bits. */
const WEIGHT_RANGE = 64;

/** Sums over a row's columns, in units of its RMS: see `statistics` in kernels/encode/groups.ts. */
const STATISTICS = 6;

/** Throws InputError for weights or Hessians that are not finite, and the signal's reason. */
export async function encodeTrellis(
  runtime: WasmRuntime,
  input: EncodeTrellisInput,
): Promise<EncodedTrellis> {
  const { weights, rows, columns, signal, onProgress, seed = 0 } = input;
  if (weights.length !== rows * columns)
    throw new RangeError("encodeTrellis: weights are not rows x columns");
  signal?.throwIfAborted();
  const rotation = createRotation(columns, seed);
  const { code, chunkRows } = chooseSequences(input);
  const codebooks = new Map<number, Codebook>(
    distinctWidths(code.widths).map((width) => [width, defaultCodebook(code.codeBits, width)]),
  );
  const factor = await factorOf(runtime, input, seed);
  try {
    const rms = rowRms(weights, rows, columns);
    const rowWeights = searchWeights(rms, input.rowCosts);
    const groups = columnGroups(code.widths, columns).length;
    const codes = new Uint8Array(groups * rows);
    const statistics = new Float64Array(STATISTICS * rows);
    const chunk = new ChunkEncoder(runtime, { code, codebooks, columns, rotation, factor });
    const chunks = Math.ceil(rows / chunkRows);
    for (let k = 0; k < chunks; k++) {
      const start = k * chunkRows;
      await chunk.encode(
        { weights, rms, rowWeights, totalRows: rows, start, end: Math.min(rows, start + chunkRows) },
        { codes, statistics },
        signal,
        (done) => onProgress?.({ stage: "encode", done: k * groups + done, total: chunks * groups }),
      );
    }
    const fit = fitScales(rms, statistics, rows, factor?.added ?? 0);
    const coded = packTrellis({
      rows,
      columns,
      code,
      seed,
      codes,
      tables: distinctWidths(code.widths).map((width) => codebooks.get(width)!.tables),
      scales: fit.scales,
    });
    return { coded, proxyError: fit.proxyError, squaredError: fit.squaredError };
  } finally {
    if (factor && factor !== input.hessian) factor.free();
  }
}

/** The code with as many sequences, and cyclic ones, as this many rows allow. */
function chooseSequences(input: EncodeTrellisInput): { code: TrellisCode; chunkRows: number } {
  const { rows, columns, rate, interleave = 1, tailBiting = true, chunkWeights = CHUNK_WEIGHTS } = input;
  const { codeBits, widths } = typeof rate === "number" ? codeForRate(rate) : rate;
  if (!Number.isInteger(interleave) || interleave < 1 || interleave > 16)
    throw new InputError(`interleave must be 1 to 16 sequences, not ${interleave}`);
  const chunk = Math.max(MINIMUM_CHUNK_ROWS, Math.floor(chunkWeights / columns));
  const chunkRows = chunk - (chunk % 16);
  const cyclic = tailBiting && rows <= chunkRows;
  const fits = (sequences: number) => cycles(rows, sequences).length >= MINIMUM_CYCLE;
  const sequences = fits(interleave) ? interleave : 1;
  return {
    code: {
      codeBits,
      widths,
      interleave: sequences,
      tailBiting: cyclic && fits(sequences),
      maps: "split",
    },
    chunkRows,
  };
}

async function factorOf(
  runtime: WasmRuntime,
  { hessian, columns, damping, signal }: EncodeTrellisInput,
  seed: number,
): Promise<FactoredHessian | undefined> {
  if (!hessian) return undefined;
  if (!(hessian instanceof FactoredHessian))
    return FactoredHessian.create(runtime, { hessian, columns, seed, damping, signal });
  if (hessian.columns !== columns || hessian.seed !== seed)
    throw new RangeError("encodeTrellis: the factored Hessian is of another width or rotation");
  return hessian;
}

/** Root mean square of each row; rotation does not change it. */
function rowRms(weights: Float32Array, rows: number, columns: number): Float32Array {
  const rms = new Float32Array(rows);
  for (let r = 0; r < rows; r++) {
    let sum = 0;
    for (let i = r * columns; i < (r + 1) * columns; i++) sum += weights[i] * weights[i];
    rms[r] = Math.sqrt(sum / columns);
    if (!Number.isFinite(rms[r]))
      throw new InputError("the matrix has weights that are infinite or not numbers");
  }
  return rms;
}

/** What a row's squared error in units of its RMS counts for in the search: 1 on average. */
function searchWeights(rms: Float32Array, costs: Float32Array | undefined): Float32Array {
  const weights = rms.map((x, r) => x * x * (costs?.[r] ?? 1));
  let mean = 0;
  for (const x of weights) mean += x / weights.length;
  const [least, most] = [mean / WEIGHT_RANGE, mean * WEIGHT_RANGE];
  return weights.map((x) => (mean > 0 ? Math.min(Math.max(x, least), most) / mean : 1));
}

/** Least-squares row scales under the damped Hessian, rounded as they are stored, and the errors they leave. */
function fitScales(
  rms: Float32Array,
  statistics: Float64Array,
  rows: number,
  added: number,
): { scales: Float32Array; proxyError: number; squaredError: number } {
  const of = (r: number) => statistics.subarray(STATISTICS * r, STATISTICS * (r + 1));
  const best = rms.map((size, r) => {
    const [, wHq, qHq] = of(r);
    return qHq > 0 ? (size * wHq) / qHq : 0;
  });
  const scales = unpackScales(packScales(best));
  let proxy = 0;
  let proxyTotal = 0;
  let squared = 0;
  let squaredTotal = 0;
  for (let r = 0; r < rows; r++) {
    const [wHw, wHq, qHq, ww, wq, qq] = of(r);
    const s = rms[r] > 0 ? scales[r] / rms[r] : 0;
    const power = rms[r] * rms[r];
    const error = ww - 2 * s * wq + s * s * qq;
    squared += power * error;
    squaredTotal += power * ww;
    proxy += power * (wHw - 2 * s * wHq + s * s * qHq - added * error);
    proxyTotal += power * (wHw - added * ww);
  }
  const share = (part: number, whole: number) => (whole > 0 ? part / whole : 0);
  return { scales, proxyError: share(proxy, proxyTotal), squaredError: share(squared, squaredTotal) };
}
