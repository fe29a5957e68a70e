/** One job of the encoder: the codes of a range of rows, in memory borrowed from the runtime. */
import type { WasmRuntime } from "../../compute/wasm/runtime.js";
import { InputError } from "../../errors.js";
import type { Rotation } from "../rotation.js";
import { type ColumnGroup, columnGroups, stateCodes, type TrellisCode } from "./code.js";
import { type Codebook, orderedCodewords } from "./codebook.js";
import type { FactoredHessian } from "./hessian.js";
import { planeStride, Scratch } from "./scratch.js";
import { allocateSchedule, allocateSearch } from "./viterbi.js";

/** Columns of a feedback block and the widest group, less one: as in kernels/encode/groups.ts. */
const BLOCK_COLUMNS = 64 + 3;
const PROGRESS_MILLISECONDS = 100;
/** Words of the kernel's `GroupEncoding`; its status is the last. */
const STATUS_WORD = 17;

export interface ChunkRows {
  /** [totalRows, columns] */
  readonly weights: Float32Array;
  /** [totalRows] */
  readonly rms: Float32Array;
  readonly rowWeights: Float32Array;
  readonly totalRows: number;
  readonly start: number;
  readonly end: number;
}

export interface ChunkResults {
  /** [groups][totalRows]; rows before `start` are there already. */
  readonly codes: Uint8Array;
  /** [totalRows][6] */
  readonly statistics: Float64Array;
}

export class ChunkEncoder {
  readonly #groups: readonly ColumnGroup[];

  constructor(
    readonly runtime: WasmRuntime,
    readonly options: {
      readonly code: TrellisCode;
      readonly codebooks: ReadonlyMap<number, Codebook>;
      readonly columns: number;
      readonly rotation: Rotation;
      readonly factor: FactoredHessian | undefined;
    },
  ) {
    this.#groups = columnGroups(options.code.widths, options.columns);
  }

  async encode(
    chunk: ChunkRows,
    results: ChunkResults,
    signal: AbortSignal | undefined,
    onGroups: (done: number) => void,
  ): Promise<void> {
    const { runtime } = this;
    const scratch = new Scratch(runtime);
    const progress = scratch.bytes(8);
    const cancelled = progress + 4;
    const cancel = () => {
      runtime.i32(cancelled, 1)[0] = 1;
    };
    let timer: ReturnType<typeof setInterval> | undefined;
    try {
      signal?.addEventListener("abort", cancel);
      const stride = planeStride(chunk.end - chunk.start);
      const plane = 4 * stride * this.options.columns;
      const weights = scratch.bytes(plane);
      const errors = scratch.bytes(plane);
      // The row-major copy is only needed until it is transposed, and the errors only from then on.
      await this.#loadWeights(chunk, weights, errors, stride, signal);
      const task = this.#task(scratch, chunk, results.codes, {
        weights,
        errors,
        stride,
        progress,
        cancelled,
      });
      timer = setInterval(() => onGroups(runtime.i32(progress, 1)[0]), PROGRESS_MILLISECONDS);
      await runtime.submit("encodeGroups", [task.pointer], signal);
      if (runtime.i32(task.pointer + 4 * STATUS_WORD, 1)[0] !== 0)
        throw new InputError("cannot code a matrix whose weights or Hessian are not finite");
      this.#collect(chunk, results, task, stride);
      onGroups(this.#groups.length);
    } finally {
      clearInterval(timer);
      signal?.removeEventListener("abort", cancel);
      scratch.free();
    }
  }

  /** Rows divided by their RMS, transposed to planes and rotated. `rowMajor` is room for the rows. */
  async #loadWeights(
    { weights, rms, start, end }: ChunkRows,
    planes: number,
    rowMajor: number,
    stride: number,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const { runtime } = this;
    const { columns, rotation } = this.options;
    const rows = end - start;
    const copy = runtime.f32(rowMajor, rows * columns);
    for (let r = 0; r < rows; r++) {
      const inverse = rms[start + r] > 0 ? 1 / rms[start + r] : 0;
      const from = (start + r) * columns;
      for (let c = 0; c < columns; c++) copy[r * columns + c] = inverse * weights[from + c];
    }
    const scratch = new Scratch(runtime);
    try {
      await runtime.submit("transpose", [rowMajor, columns, rows, columns, planes, stride], signal);
      const signs = scratch.floats(rotation.signs);
      const q = scratch.floats(rotation.q);
      const strips = scratch.bytes(2 * 4 * 16 * columns);
      await runtime.submit(
        "rotateColumns",
        [planes, columns, stride, stride, signs, q, rotation.m, strips],
        signal,
      );
    } finally {
      scratch.free();
    }
    runtime.f32(rowMajor, stride * columns).fill(0);
  }

  /** Writes the kernel's `GroupEncoding`, field by field in its order. */
  #task(
    scratch: Scratch,
    { rowWeights, totalRows, start, end }: ChunkRows,
    previousCodes: Uint8Array,
    planes: { weights: number; errors: number; stride: number; progress: number; cancelled: number },
  ): { pointer: number; codes: number; statistics: number } {
    const { runtime } = this;
    const { code, codebooks, factor } = this.options;
    const groups = this.#groups;
    const rows = end - start;
    const { stride } = planes;
    const books = new Map([...codebooks].map(([width, book]) => [width, this.#codebook(scratch, book)]));
    const starts = scratch.bytes(2 * groups.length * code.interleave);
    const firstStates = this.#firstStates(previousCodes, totalRows, start);
    new Uint16Array(runtime.memory.buffer, starts, firstStates.length).set(firstStates);
    const codes = scratch.bytes(groups.length * rows);
    const path = scratch.bytes(rows);
    const statistics = scratch.bytes(4 * 6 * stride);
    const search = allocateSearch(
      runtime,
      scratch,
      {
        targets: 0,
        stride,
        width: 0,
        rowWeights: scratch.floats(rowWeights.subarray(start, end)),
        codewords: 0,
        codeBits: code.codeBits,
        schedule: 0,
        rows,
        interleave: code.interleave,
        tailBiting: code.tailBiting,
        starts,
        codes: 0,
        path,
      },
      0,
    );
    const pointer = scratch.words([
      search,
      groups.length,
      scratch.words(groups.flatMap((group) => [group.start, group.columns])),
      scratch.words(groups.map(({ width }) => books.get(width)!)),
      planes.weights,
      planes.errors,
      factor?.pointer ?? 0,
      factor?.stride ?? 0,
      starts,
      codes,
      path,
      scratch.bytes(4 * BLOCK_COLUMNS * stride),
      scratch.bytes(4 * BLOCK_COLUMNS * stride),
      scratch.bytes(4 * 4 * 256),
      statistics,
      planes.progress,
      planes.cancelled,
      0,
    ]);
    return { pointer, codes, statistics };
  }

  #codebook(scratch: Scratch, codebook: Codebook): number {
    const pointer = scratch.words([
      allocateSchedule(this.runtime, scratch, codebook.schedule),
      scratch.floats(orderedCodewords(codebook)),
      0,
    ]);
    this.runtime.f32(pointer + 8, 1)[0] = codebook.distortion;
    return pointer;
  }

  /** [groups][interleave] positions of the states that the rows before `start` left. */
  #firstStates(codes: Uint8Array, totalRows: number, start: number): Uint16Array {
    const { interleave, codeBits } = this.options.code;
    const out = new Uint16Array(this.#groups.length * interleave);
    this.#groups.forEach(({ width }, g) => {
      const { positionOf } = this.options.codebooks.get(width)!.schedule;
      for (let s = 0; s < interleave; s++) {
        let state = 0;
        for (let age = 0; age < stateCodes(codeBits); age++) {
          const row = start + s - (age + 1) * interleave;
          if (row >= 0) state |= codes[g * totalRows + row] << (age * codeBits);
        }
        out[g * interleave + s] = positionOf[state];
      }
    });
    return out;
  }

  #collect(
    { totalRows, start, end }: ChunkRows,
    { codes, statistics }: ChunkResults,
    task: { codes: number; statistics: number },
    stride: number,
  ): void {
    const rows = end - start;
    this.#groups.forEach((_, g) => {
      codes.set(this.runtime.u8(task.codes + g * rows, rows), g * totalRows + start);
    });
    const sums = this.runtime.f32(task.statistics, 6 * stride);
    for (let r = 0; r < rows; r++)
      for (let k = 0; k < 6; k++) statistics[6 * (start + r) + k] = sums[k * stride + r];
  }
}
