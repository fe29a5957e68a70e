/**
 * What the compress pipeline asks of a codec: which rates a matrix can be coded at, and the coding itself.
 * One adapter for each of the two methods.
 */
import type { CodedMatrix } from "../codec/coded.js";
import type { Rate } from "./plan.js";

export interface EncodeInput<Code> {
  /** [rows, columns] */
  readonly weights: Float32Array;
  readonly rows: number;
  readonly columns: number;
  /** What squared error costs in each row, in any one unit. Default: the same in all rows. */
  readonly rowCosts?: Float32Array | undefined;
  /** E[x xᵀ] of the matrix's input, [columns, columns]; absent without calibration. */
  readonly hessian?: Float32Array | undefined;
  readonly damping?: number | undefined;
  readonly rate: Rate<Code>;
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
}

export interface EncodeResult {
  readonly coded: CodedMatrix;
  /** |W - Ŵ|² / |W|² */
  readonly squaredError: number;
  /** tr(E H Eᵀ) / tr(W H Wᵀ), E = W - Ŵ; null without a Hessian. */
  readonly proxyError: number | null;
}

export interface MatrixCodec<Code> {
  readonly method: CodedMatrix["method"];
  /** Whether matrices are to be coded side by side, a thread each; false where one keeps all threads busy. */
  readonly concurrent: boolean;
  /** Every rate on offer for a matrix of this size, by ascending size. */
  rates(rows: number, columns: number): readonly Rate<Code>[];
  encode(input: EncodeInput<Code>): Promise<EncodeResult>;
}
