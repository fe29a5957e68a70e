/**
 * A trellis-coded matrix whose scales and tables are trained while its codes stay: weights are linear in
 * both, weight (r, c) = scales[r] * (A[u & 15][v] + B[u >> 4][v]) in the rotated basis.
 */
import type { Buffer, TrellisWeights } from "../../compute/backend.js";
import type { WasmBackend } from "../../compute/wasm/backend.js";
import { runSplit } from "../../compute/wasm/work.js";
import { f32ToBytes } from "../../tensor/dtype.js";
import type { CodedMatrix } from "../coded.js";
import { columnGroups, distinctWidths } from "./code.js";
import { windowBytes } from "./decode.js";
import { freeTrellisWeights, trellisWeights } from "./linear.js";
import { packScales } from "./scales.js";
import { Scratch } from "./scratch.js";
import { storedScales, storedTables, validateTrellis } from "./stored.js";
import { UploadedRotation } from "./uploaded-rotation.js";

/**
 * Parts that a table's gradient is summed in before they are added in order: fixed, so that the sum does not
 * depend on the number of threads.
 */
const PARTS = 16;

export class TrainableTrellis {
  readonly rows: number;
  readonly columns: number;
  /** What is trained. After changing them call `update`. */
  readonly scales: Float32Array;
  readonly tables: Float32Array;
  /** Gradients that `backward` adds to. */
  readonly dScales: Float32Array;
  readonly dTables: Float32Array;
  readonly #backend: WasmBackend;
  readonly #coded: CodedMatrix;
  readonly #weights: TrellisWeights;
  readonly #scratch: Scratch;
  readonly #rotation: UploadedRotation;
  readonly #groups: number;
  readonly #windows: number;
  readonly #layout: number;
  readonly #sums: number;
  readonly #ids: Int32Array;
  /** What `decode` last wrote with. */
  #written: { readonly scales: Float32Array; readonly tables: Float32Array } | undefined;

  /** Throws CorruptFileError naming `name` on impossible parameters or tensors. */
  constructor(backend: WasmBackend, coded: CodedMatrix, name?: string) {
    const { code, seed } = validateTrellis(coded, name);
    const { rows, columns } = coded;
    this.rows = rows;
    this.columns = columns;
    this.#backend = backend;
    this.#coded = coded;
    this.scales = storedScales(coded);
    this.tables = storedTables(coded);
    this.dScales = new Float32Array(this.scales.length);
    this.dTables = new Float32Array(this.tables.length);
    this.#weights = trellisWeights(backend, coded, name);
    this.#ids = Int32Array.from({ length: rows }, (_, i) => i);
    this.#rotation = new UploadedRotation(backend, columns, seed);
    const offsets = new Map<number, number>();
    let at = 0;
    for (const width of distinctWidths(code.widths)) {
      offsets.set(width, at);
      at += 32 * width;
    }
    const groups = columnGroups(code.widths, columns);
    this.#groups = groups.length;
    this.#scratch = new Scratch(backend.runtime);
    this.#windows = this.#scratch.bytes(rows * groups.length);
    backend.runtime.u8(this.#windows, rows * groups.length).set(windowBytes(coded, code));
    this.#layout = this.#scratch.words(
      groups.flatMap(({ start, columns: count, width }) => [start, count, offsets.get(width)!, width]),
    );
    this.#sums = this.#scratch.bytes(4 * (rows + PARTS * this.tables.length));
  }

  /** Writes the weights, rotated back, to rows `first` … of `weight` [?, columns]. */
  decode(weight: Buffer, first = 0): void {
    const part = this.#part(weight, first);
    this.#backend.trellisGather(this.#weights, this.#ids, part);
    this.#rotation.rotate(part, part, this.rows, true);
    this.#written = { scales: this.scales.slice(), tables: this.tables.slice() };
  }

  /**
   * `decode` over what it wrote there last: where only scales have changed since, each row is multiplied by the
   * change of its own, in a fifth of the time and equal but for rounding.
   */
  refresh(weight: Buffer, first = 0): void {
    const written = this.#written;
    const rescalable = written?.tables.every((x, i) => x === this.tables[i]) && !written.scales.includes(0);
    if (!written || !rescalable) {
      this.decode(weight, first);
      return;
    }
    const { runtime } = this.#backend;
    const { rows, columns } = this;
    const factors = runtime.f32(this.#sums, rows);
    for (let r = 0; r < rows; r++) factors[r] = this.scales[r] / written.scales[r];
    written.scales.set(this.scales);
    if (factors.every((factor) => factor === 1)) return;
    const pointer = this.#backend.pointer(this.#part(weight, first));
    runSplit(runtime, "scaleRows", rows, 1, rows * columns, (from, end) => [
      pointer,
      this.#sums,
      columns,
      from,
      end,
    ]);
  }

  /** Adds to dScales and dTables from rows `first` … of dWeight [?, columns], which are left rotated. */
  backward(dWeight: Buffer, first = 0): void {
    const { runtime } = this.#backend;
    const { rows, columns } = this;
    const part = this.#part(dWeight, first);
    this.#rotation.rotate(part, part, rows, false);
    const length = this.tables.length;
    runtime.f32(this.#sums, rows + PARTS * length).fill(0);
    const pointer = (buffer: Buffer) => this.#backend.pointer(buffer);
    const { tables, scales } = this.#weights;
    const boundary = (i: number) => Math.round((rows * i) / PARTS);
    const part0 = this.#sums + 4 * rows;
    for (let from = 0; from < PARTS; from += runtime.threads)
      runtime.parallel(
        "trellisGradient",
        Array.from({ length: Math.min(runtime.threads, PARTS - from) }, (_, t) => [
          pointer(part),
          columns,
          this.#windows,
          this.#groups,
          this.#layout,
          pointer(tables),
          pointer(scales),
          this.#sums,
          part0 + 4 * (from + t) * length,
          boundary(from + t),
          boundary(from + t + 1),
        ]),
      );
    const sums = runtime.f32(this.#sums, rows + PARTS * length);
    for (let r = 0; r < rows; r++) this.dScales[r] += sums[r];
    for (let p = 0; p < PARTS; p++)
      for (let i = 0; i < length; i++) this.dTables[i] += sums[rows + p * length + i];
  }

  /** Takes changed scales and tables over. */
  update(): void {
    this.#backend.write(this.#weights.scales, this.scales);
    this.#backend.write(this.#weights.tables, this.tables);
  }

  /** The coded matrix with the trained numbers, rounded as they are stored. */
  coded(): CodedMatrix {
    const tensors = new Map(this.#coded.tensors);
    const scales = packScales(this.scales);
    tensors.set("scales", { dtype: "U8", shape: [scales.length], data: scales });
    tensors.set("tables", { ...tensors.get("tables")!, data: f32ToBytes(this.tables, "F16") });
    return { ...this.#coded, tensors };
  }

  free(): void {
    freeTrellisWeights(this.#backend, this.#weights);
    this.#rotation.free();
    this.#scratch.free();
  }

  #part(buffer: Buffer, first: number): Buffer {
    return this.#backend.view(buffer, first * this.columns, this.rows * this.columns);
  }
}
