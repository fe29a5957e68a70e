/**
 * Settings of the method "meta" and its exact cost in bits. A matrix [rows, columns] is cut along its columns
 * into sub-vectors of d weights; each is one index into a codebook of k entries of width d; a decoder of
 * small MLP blocks maps entries to weights. After PocketLLM (arXiv 2511.17637); defaults are the paper's.
 */
import { InputError } from "../../errors.js";
import { packedBytes } from "../bits.js";

/**
 * What the RLN ("reshaped" layer norm) at the input of every MLP block takes its mean and variance over:
 * "rows": the columns / d sub-vectors of one row, as the paper's text says. "columns": about columns / d
 * sub-vectors of consecutive rows at the same d columns, the regrouping of the paper's published code.
 * "off": no normalisation inside the network, which makes the decoder a table of k decoded entries.
 */
export type Rln = "rows" | "columns" | "off";

/** What decides the stored form: everything that `metaBits` needs. */
export interface MetaShape {
  /** Weights of a sub-vector, and width of a codebook entry: 4 or 8. */
  readonly d: number;
  /** Codebook entries: a power of two from 16 to 65536. */
  readonly k: number;
  /** Hidden width of an MLP block d -> hidden -> d. */
  readonly hidden: number;
  /** MLP blocks of the decoder (and of the encoder, which is not stored). The first is plain, the others add their input. */
  readonly blocks: number;
  readonly rln: Rln;
  /**
   * Stores mean and 1/sigma of the weights of every RLN group, 32 bits a group; the network codes normalised
   * weights and the decoder's output is scaled back. Without it one pair stands for the whole matrix: the
   * literal reading of the paper, in which the decoder's first RLN erases what scale the entries carry.
   * Means nothing with rln "off".
   */
  readonly groupScale: boolean;
}

export interface MetaOptions extends MetaShape {
  /** "normal": N(0, 2 / sqrt(d)), as in the paper's code. "kmeans": of the untrained encoder's outputs. */
  readonly initialisation: "normal" | "kmeans";
  /** "paper": RMSE + lambda * MSE(entry, encoder output). "code" (the published code): MSE in place of RMSE. */
  readonly loss: "paper" | "code";
  /** The published code has 0.4 and 0.5; the paper gives no figure. */
  readonly lambda: number;
  readonly epochs: number;
  /** Sub-vectors of a training batch, rounded to whole RLN groups; fewer on small matrices, see `stepsPerEpoch`. */
  readonly batch: number;
  /**
   * Batches shrink, down to 256 sub-vectors, until an epoch has this many steps. 128 is what the paper's 4096 x 4096
   * matrices have at d 8 and batch 16384, where it changes nothing; a 576 x 576 matrix would have 3, and end at an error of 0.17 in place of 0.12. 1 turns
   * it off.
   */
  readonly stepsPerEpoch: number;
  /** Of Adam (0.9, 0.999, 1e-8). */
  readonly learningRate: number;
  /** The learning rate is multiplied by `decay` after every `decayEpochs` epochs. */
  readonly decay: number;
  readonly decayEpochs: number;
}

export const META_DEFAULTS: MetaOptions = {
  d: 8,
  k: 4096,
  hidden: 16,
  blocks: 3,
  rln: "rows",
  groupScale: true,
  initialisation: "normal",
  loss: "paper",
  lambda: 0.4,
  epochs: 50,
  batch: 16384,
  stepsPerEpoch: 128,
  learningRate: 1.6e-2,
  decay: 0.1,
  decayEpochs: 15,
};

export const MIN_K = 16;
/** An index has at most 16 bits. */
export const MAX_K = 65536;
/** More than 3 blocks hurt in the paper; the limits only bound what a file may ask for. */
export const MAX_HIDDEN = 256;
export const MAX_BLOCKS = 16;

/** Numbers of one MLP block's weights and biases: W1 [hidden, d], b1 [hidden], W2 [d, hidden], b2 [d]. */
function blockWeights({ d, hidden }: MetaShape): number {
  return 2 * d * hidden + hidden + d;
}

/** Stored numbers of the decoder: its blocks, each with RLN's weight [d] and bias [d] before it unless rln is "off". */
export function decoderLength(shape: MetaShape): number {
  return shape.blocks * (blockWeights(shape) + (shape.rln === "off" ? 0 : 2 * shape.d));
}

/** RLN groups of a matrix; with rln "off" the whole matrix counts as one. */
export function groupCount(rows: number, columns: number, { d, rln }: MetaShape): number {
  if (rln === "off") return 1;
  return rln === "rows" ? rows : (columns / d) * rowParts(rows, columns / d);
}

/** Into how many parts "columns" cuts the rows, so that a part has about as many rows as a row has sub-vectors. */
export function rowParts(rows: number, perRow: number): number {
  return Math.max(1, Math.round(rows / perRow));
}

/** Pairs of mean and 1/sigma that are stored. */
export function statisticsCount(rows: number, columns: number, shape: MetaShape): number {
  return shape.groupScale ? groupCount(rows, columns, shape) : 1;
}

/** Exact stored bits a weight: indices, codebook, decoder and statistics of a matrix [rows, columns]. */
export function metaBits(rows: number, columns: number, options: Partial<MetaShape> = {}): number {
  const shape = { ...META_DEFAULTS, ...options };
  const codes = 8 * packedBytes((rows * columns) / shape.d, Math.log2(shape.k));
  const numbers = shape.k * shape.d + decoderLength(shape) + 2 * statisticsCount(rows, columns, shape);
  return (codes + 16 * numbers) / (rows * columns);
}

/** Fills in defaults and checks everything against the matrix. Throws InputError naming the setting. */
export function resolveMetaOptions(
  rows: number,
  columns: number,
  options: Partial<MetaOptions> = {},
): MetaOptions {
  const all = { ...META_DEFAULTS, ...options };
  const { d, k } = all;
  const problem = shapeProblem(rows, columns, all) ?? trainingProblem(all);
  if (problem) throw new InputError(`meta: ${problem}`);
  const bits = metaBits(rows, columns, all);
  if (bits >= 16)
    throw new InputError(
      `meta: ${k} entries of ${d} make a ${rows} x ${columns} matrix larger (${bits.toFixed(1)} bits a weight); choose a smaller k`,
    );
  return all;
}

/** What is impossible about a shape, or undefined. For files and for options. */
export function shapeProblem(rows: number, columns: number, shape: MetaShape): string | undefined {
  const { d, k, hidden, blocks, rln } = shape;
  if (!isCount(rows, 2 ** 31) || !isCount(columns, 2 ** 31) || rows * columns > 2 ** 33)
    return `impossible matrix size ${rows} x ${columns}`;
  if (d !== 4 && d !== 8) return `d must be 4 or 8, not ${d}`;
  if (columns % d !== 0) return `${columns} columns are not a multiple of d = ${d}`;
  if (!isCount(k, MAX_K) || k < MIN_K || (k & (k - 1)) !== 0)
    return `k must be a power of two from ${MIN_K} to ${MAX_K}, not ${k}`;
  if (!isCount(hidden, MAX_HIDDEN)) return `hidden must be 1 to ${MAX_HIDDEN}, not ${hidden}`;
  if (!isCount(blocks, MAX_BLOCKS)) return `blocks must be 1 to ${MAX_BLOCKS}, not ${blocks}`;
  if (rln !== "rows" && rln !== "columns" && rln !== "off") return `unknown rln "${rln}"`;
  if (typeof shape.groupScale !== "boolean") return "groupScale must be true or false";
  return undefined;
}

function trainingProblem(options: MetaOptions): string | undefined {
  const { initialisation, loss } = options;
  if (initialisation !== "normal" && initialisation !== "kmeans")
    return `unknown initialisation "${initialisation}"`;
  if (loss !== "paper" && loss !== "code") return `unknown loss "${loss}"`;
  for (const name of ["epochs", "batch", "stepsPerEpoch", "decayEpochs"] as const)
    if (!isCount(options[name], 2 ** 31)) return `${name} must be a whole number of at least 1`;
  for (const name of ["lambda", "learningRate", "decay"] as const)
    if (!(options[name] >= 0 && Number.isFinite(options[name])))
      return `${name} must be a number of at least 0`;
  return undefined;
}

function isCount(value: number, maximum: number): boolean {
  return Number.isSafeInteger(value) && value >= 1 && value <= maximum;
}

/**
 * The (d, k) that promises the least error of a rows x columns matrix within `targetBits` bits a weight,
 * codebook, decoder and statistics counted. `options` fixes the rest of the shape. Throws InputError when not
 * even the smallest codebook fits.
 */
export function chooseK(
  rows: number,
  columns: number,
  targetBits: number,
  options: Partial<MetaShape> = {},
): { readonly d: number; readonly k: number; readonly bits: number } {
  let best: { d: number; k: number; bits: number } | undefined;
  let least = Number.POSITIVE_INFINITY;
  for (const d of [8, 4]) {
    if (columns % d !== 0) continue;
    for (let k = MIN_K; k <= MAX_K; k *= 2) {
      const bits = metaBits(rows, columns, { ...options, d, k });
      const error = expectedError(d, Math.log2(k) / d);
      if (bits > targetBits || error >= least) continue;
      best = { d, k, bits };
      least = error;
    }
  }
  if (!best)
    throw new InputError(
      `meta: a ${rows} x ${columns} matrix does not fit into ${targetBits} bits a weight with any codebook`,
    );
  return best;
}

/**
 * Relative squared error to expect of vector quantisation of Gaussian weights at `rate` bits: the Shannon bound
 * 2^(-2 rate) times what dimension d loses. Fitted to k-means of unit Gaussians: d 8: 0.325 at 1 bit, 0.175 at
 * 1.5; d 4: 0.100 at 2, 0.028 at 3.
 */
export function expectedError(d: number, rate: number): number {
  const loss = d === 8 ? 1.3 + 0.2 * (rate - 1) : 1.6 + 0.19 * (rate - 2);
  return 2 ** (-2 * rate) * loss;
}
