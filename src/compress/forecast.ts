/**
 * How long `compress` will take and how much memory, from operations and bytes counted and speeds measured on
 * two cores of an AMD EPYC (Node 20.20): good to about a third there, and as far off elsewhere as the machine.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import { wholeFloats } from "../transformer/weights.js";
import { HEAD_TOKENS } from "./calibrated.js";
import type { MatrixInfo } from "./matrices.js";
import { SENSITIVITY_TOKENS } from "./sensitivity.js";

export interface Forecast {
  readonly seconds: number;
  readonly memoryBytes: number;
}

export interface ForecastOptions {
  readonly config: ModelConfig;
  readonly matrices: readonly MatrixInfo[];
  /** Of calibration text; 0 without. */
  readonly tokens: number;
  readonly threads: number;
}

/** Multiplications and additions a second and thread in the passes over calibration text, all beside them counted. */
const CALIBRATION_SPEED = 30e9;
/** The same while gradients are taken: the next tokens are drawn in plain code. */
const GRADIENT_SPEED = 20e9;
/** Seconds of one thread a weight: the search, the mean over the rates; and error feedback, a column. */
const SEARCH_SECONDS = 0.45e-6;
const FEEDBACK_SECONDS = 2 / 40e9;
/** Node, the program and its workers. */
const BASE_BYTES = 150e6;
/** Weights and errors of a chunk of rows in the encoder, a thread. */
const CHUNK_BYTES = 2 ** 28;

export function forecast({ config, matrices, tokens, threads }: ForecastOptions): Forecast {
  const search = matrices.reduce(
    (sum, { rows, columns }) =>
      sum + rows * columns * (SEARCH_SECONDS + (tokens > 0 ? FEEDBACK_SECONDS * columns : 0)),
    0,
  );
  const largest = Math.max(...matrices.map(({ rows, columns }) => rows * columns));
  // Each thread codes a matrix: its weights twice (read, and on the backend) and its planes.
  const coding = Math.min(threads, matrices.length) * Math.min(8 * largest, CHUNK_BYTES) + 8 * largest;
  if (tokens === 0) return { seconds: search / threads, memoryBytes: BASE_BYTES + coding };

  const { layers, hiddenSize, vocabularySize, heads, headSize, intermediateSize, tiedEmbeddings } = config;
  const inLayers = matrices.reduce((sum, m) => sum + (m.layer === null ? 0 : m.rows * m.columns), 0);
  const inputs = [hiddenSize, heads * headSize, hiddenSize, intermediateSize];
  // Two streams; of each input its own products, half of them by symmetry, and those with the other stream's.
  const products = layers * inputs.reduce((sum, n) => sum + 1.5 * n * n, 0);
  // Of o and down also the products with the errors of the residual stream.
  const residual = layers * hiddenSize * (heads * headSize + intermediateSize);
  const streams = 2 * tokens * (2 * inLayers + products + residual);
  const head = tiedEmbeddings ? 2 * Math.min(tokens, HEAD_TOKENS) * inLayers : 0;
  const measured = Math.min(tokens, SENSITIVITY_TOKENS);
  // Forward, forward again, and the gradient of the inputs.
  const gradients = 2 * measured * 3 * (inLayers + vocabularySize * hiddenSize);
  const seconds = ((streams + head) / CALIBRATION_SPEED + gradients / GRADIENT_SPEED + search) / threads;
  const streamBytes = 3 * 4 * tokens * hiddenSize;
  // Embedding read, on the backend, its gradient and that read; hidden states of all layers.
  const sensitivityBytes = 16 * wholeFloats(config) + 4 * measured * hiddenSize * (layers + 1);
  return { seconds, memoryBytes: BASE_BYTES + Math.max(streamBytes + coding, sensitivityBytes) };
}
