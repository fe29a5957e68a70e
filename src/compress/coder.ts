/**
 * Codes planned matrices and keeps them in the folder's journal: matrices that an interrupted run has already
 * finished are taken from there. Errors are measured as they are coded and kept for the manifest.
 */
import type { JsonValue } from "../codec/coded.js";
import type { CodedLayer, Tier } from "../container/layer.js";
import type { FolderWriter } from "../container/writer.js";
import { throwIfAborted } from "../errors.js";
import type { EncodeResult, MatrixCodec } from "./codec.js";
import type { Part } from "./options.js";
import type { PlannedMatrix, Sensitivities } from "./plan.js";

export interface MatrixInput {
  readonly weights: Float32Array;
  readonly hessian?: Float32Array | undefined;
  readonly damping?: number | undefined;
}

/** Errors of one matrix, by tier where it has several. */
export interface MatrixErrors {
  readonly squaredError: readonly number[];
  readonly proxyError: readonly (number | null)[];
}

export interface CoderOptions<Code> {
  readonly codec: MatrixCodec<Code>;
  readonly writer: FolderWriter;
  readonly seed: number;
  /** Measured costs of errors, by the matrix's name. Default: all rows alike. */
  readonly sensitivities?: Sensitivities | undefined;
  /** Parts of the method to leave out: `row-weights` and `feedback` are seen to here. */
  readonly without?: readonly Part[] | undefined;
  readonly signal: AbortSignal | undefined;
  /** Called after each matrix with the number of weights done so far. */
  readonly onCoded: (weightsDone: number, matrix: PlannedMatrix<Code>) => void;
}

export class Coder<Code> {
  readonly #options: CoderOptions<Code>;
  #weightsDone = 0;

  constructor(options: CoderOptions<Code>) {
    this.#options = options;
  }

  /** Whether an earlier run has coded this matrix. */
  has(matrix: PlannedMatrix<Code>): boolean {
    return this.#options.writer.has(matrix.name);
  }

  /** The coded matrix: from the journal, or coded now from what `input` gives and put there. */
  async code(matrix: PlannedMatrix<Code>, input: () => Promise<MatrixInput>): Promise<CodedLayer> {
    const { writer, signal, onCoded } = this.#options;
    let layer: CodedLayer;
    if (this.has(matrix)) layer = await writer.getCoded(matrix.name);
    else {
      throwIfAborted(signal);
      const results = await this.#encode(matrix, await input());
      layer = assemble(matrix, results);
      // Errors first: a matrix in the journal always has its errors there too.
      await writer.putNote(errorsNote(matrix.name), roundedErrors(results));
      await writer.putCoded(matrix.name, layer);
    }
    this.#weightsDone += matrix.rows * matrix.columns;
    onCoded(this.#weightsDone, matrix);
    return layer;
  }

  errors(matrix: PlannedMatrix<Code>): JsonValue {
    return this.#options.writer.getNote(errorsNote(matrix.name)) ?? null;
  }

  async #encode(matrix: PlannedMatrix<Code>, input: MatrixInput): Promise<EncodeResult[]> {
    const { codec, seed, sensitivities, without = [], signal } = this.#options;
    const { columns } = matrix;
    const rowCosts = without.includes("row-weights") ? undefined : sensitivities?.[matrix.name].rows;
    const hessian = without.includes("feedback") ? undefined : input.hessian;
    const jobs = matrix.tiers.map(({ rows: [start, end], rate }) =>
      codec.encode({
        weights: input.weights.subarray(start * columns, end * columns),
        rows: end - start,
        columns,
        rowCosts: rowCosts && Float32Array.from(rowCosts.slice(start, end)),
        hessian,
        damping: input.damping,
        rate,
        seed,
        signal,
      }),
    );
    // All settle before an error goes up, so that no job is left running on memory that is then freed.
    const settled = await Promise.allSettled(jobs);
    return settled.map((result) => {
      if (result.status === "rejected") throw result.reason;
      return result.value;
    });
  }
}

function assemble<Code>(matrix: PlannedMatrix<Code>, results: readonly EncodeResult[]): CodedLayer {
  if (results.length === 1) return results[0].coded;
  const tiers: Tier[] = matrix.tiers.map(({ rows }, i) => ({ rows, matrix: results[i].coded }));
  return { rows: matrix.rows, columns: matrix.columns, tiers };
}

function errorsNote(name: string): string {
  return `errors.${name}`;
}

/** Six digits: what a report shows, and stable text. */
function roundedErrors(results: readonly EncodeResult[]): JsonValue {
  const round = (x: number | null) => (x === null ? null : Number(x.toPrecision(6)));
  return {
    squaredError: results.map((r) => round(r.squaredError)),
    proxyError: results.map((r) => round(r.proxyError)),
  };
}
