/**
 * The backend of Node and browsers: AssemblyScript SIMD kernels on a `WasmRuntime`. Calls run at once and
 * block until done. Results do not depend on the number of threads.
 */
import type {
  AttendEachOptions,
  AttentionOptions,
  Backend,
  Buffer,
  ByteBuffer,
  MatmulOptions,
  PackedRowsOptions,
  RopeOptions,
  TokenProducts,
  TokenProductsOptions,
  TrellisCodesOptions,
  TrellisWeights,
} from "../backend.js";
import {
  checkAttendEach,
  checkAttention,
  checkIds,
  checkLength,
  checkMatmul,
  checkPackedRows,
  checkRange,
  checkRope,
  checkRotation,
} from "../checks.js";
import { packedCapacity, packedRowBytes } from "../kv-format.js";
import { LANES } from "../trellis-lanes.js";
import { attendEach } from "./attend-each.js";
import { PACKED_FORMATS, planAttention } from "./attention.js";
import { addressOf, WasmBuffer, WasmByteBuffer } from "./buffers.js";
import { PanelProducts } from "./panels.js";
import { WasmRuntime, type WasmRuntimeOptions } from "./runtime.js";
import { shortProducts } from "./short-products.js";
import { WasmTokenProducts } from "./token-products.js";
import { LOOKUP_SUM_BYTES, SCRATCH_BYTES, trellisPlan } from "./trellis.js";
import { trellisCodes } from "./trellis-codes.js";
import { runSplit } from "./work.js";
import { WorkingArea } from "./working-area.js";

/** Up to here, looking products up for each token beats decoding once: see bench/gemm.mjs. */
const LOOKUP_TOKENS = 2;
/** An exponential costs about as much as this many multiplications. */
const EXP_WORK = 8;

export class WasmBackend implements Backend {
  readonly name = "wasm";
  readonly threads: number;
  /** The memory and threads, for kernels that are not operations of a backend (encoders). */
  readonly runtime: WasmRuntime;
  readonly #area: WorkingArea;
  readonly #panels: PanelProducts;

  static async create(options: WasmRuntimeOptions = {}): Promise<WasmBackend> {
    return new WasmBackend(await WasmRuntime.create(options));
  }

  constructor(runtime: WasmRuntime) {
    this.runtime = runtime;
    this.threads = runtime.threads;
    this.#area = new WorkingArea(runtime);
    this.#panels = new PanelProducts(this, this.#area);
  }

  allocate(length: number): WasmBuffer {
    return new WasmBuffer(this, this.runtime.allocate(4 * length), length);
  }

  allocateBytes(byteLength: number): WasmByteBuffer {
    return new WasmByteBuffer(this, this.runtime.allocate(byteLength), byteLength);
  }

  free(buffer: Buffer | ByteBuffer): void {
    this.runtime.free(addressOf(this, buffer));
  }

  /** A part of a buffer as a buffer: it lives and dies with the whole, and is not to be freed. */
  view(buffer: Buffer, offset: number, length: number): WasmBuffer {
    checkRange("view", buffer.length, offset, length);
    return new WasmBuffer(this, this.pointer(buffer) + 4 * offset, length);
  }

  /** The buffer's address in the runtime's memory, for kernels that are not operations of a backend. */
  pointer(buffer: Buffer): number {
    return addressOf(this, buffer);
  }

  write(buffer: Buffer, data: Float32Array, offset = 0): void {
    checkRange("write", buffer.length, offset, data.length);
    this.#view(buffer).set(data, offset);
  }

  writeBytes(buffer: ByteBuffer, data: Uint8Array, offset = 0): void {
    checkRange("writeBytes", buffer.byteLength, offset, data.length);
    this.runtime.u8(addressOf(this, buffer), buffer.byteLength).set(data, offset);
  }

  async read(buffer: Buffer, offset = 0, length = buffer.length - offset): Promise<Float32Array> {
    checkRange("read", buffer.length, offset, length);
    return this.#view(buffer).slice(offset, offset + length);
  }

  async readInto(buffer: Buffer, target: Float32Array, offset = 0): Promise<void> {
    checkRange("readInto", buffer.length, offset, target.length);
    target.set(this.#view(buffer).subarray(offset, offset + target.length));
  }

  matmul(options: MatmulOptions): void {
    checkMatmul(options);
    const { x, weight, bias, y, tokens, inputs, outputs } = options;
    if (this.#panels.suit(tokens)) {
      this.#panels.matmul(options);
      return;
    }
    const pointers = [
      addressOf(this, x),
      addressOf(this, weight),
      bias ? addressOf(this, bias) : 0,
      addressOf(this, y),
    ];
    runSplit(this.runtime, "matmul", outputs, 8, tokens * inputs * outputs, (first, end) => [
      ...pointers,
      tokens,
      inputs,
      outputs,
      first,
      end,
    ]);
  }

  gather(table: Buffer, ids: Int32Array, columns: number, y: Buffer): void {
    checkIds(ids, Math.floor(table.length / columns));
    checkLength("gather y", y, ids.length * columns);
    const from = this.#view(table);
    const to = this.#view(y);
    ids.forEach((id, i) => {
      to.set(from.subarray(id * columns, (id + 1) * columns), i * columns);
    });
  }

  rmsNorm(x: Buffer, weight: Buffer, y: Buffer, rows: number, columns: number, epsilon: number): void {
    checkLength("rmsNorm x", x, rows * columns);
    checkLength("rmsNorm weight", weight, columns);
    checkLength("rmsNorm y", y, rows * columns);
    const pointers = [addressOf(this, x), addressOf(this, weight), addressOf(this, y)];
    runSplit(this.runtime, "rmsNorm", rows, 1, rows * columns, (first, end) => [
      ...pointers,
      columns,
      epsilon,
      first,
      end,
    ]);
  }

  rope(options: RopeOptions): void {
    checkRope(options);
    const { x, cosines, sines, tokens, position, heads, headSize } = options;
    const start = 4 * position * (headSize / 2);
    const pointers = [addressOf(this, x), addressOf(this, cosines) + start, addressOf(this, sines) + start];
    runSplit(this.runtime, "rope", tokens, 1, tokens * heads * headSize, (first, end) => [
      ...pointers,
      heads,
      headSize,
      first,
      end,
    ]);
  }

  attention(options: AttentionOptions): void {
    checkAttention(options);
    const { threads, rowsPerTask, threadBytes, format, capacity } = planAttention(options, this.threads);
    const area = this.#area.reserve(threads * threadBytes);
    const { query, keys, values, y } = options;
    const pointers = [query, keys, values, y].map((buffer) => addressOf(this, buffer));
    const { tokens, position, heads, kvHeads, headSize, scale } = options;
    const window = Math.min(options.window ?? 0x7fffffff, 0x7fffffff);
    const shape = [tokens, position, heads, kvHeads, headSize, scale, window, format, capacity, rowsPerTask];
    const wide = this.runtime.arithmetic === "wide" ? 1 : 0;
    this.runtime.parallel(
      "attention",
      Array.from({ length: threads }, (_, t) => [
        ...[...pointers, ...shape, area + t * threadBytes],
        ...[t, threads, wide],
      ]),
    );
  }

  attendEach(options: AttendEachOptions): void {
    checkAttendEach(options);
    attendEach(this, this.#area, options);
  }

  packRows(options: PackedRowsOptions): void {
    this.#convertRows("packCache", options, (x, cache) => [x, cache]);
  }

  unpackRows(options: PackedRowsOptions): void {
    this.#convertRows("unpackCache", options, (x, cache) => [cache, x]);
  }

  siluMultiply(gate: Buffer, up: Buffer, length: number): void {
    checkLength("siluMultiply gate", gate, length);
    checkLength("siluMultiply up", up, length);
    const pointers = [addressOf(this, gate), addressOf(this, up)];
    // Grain 16: a cache line, and the same four lanes whatever the split.
    runSplit(this.runtime, "siluMultiply", length, 16, EXP_WORK * length, (first, end) => [
      ...pointers,
      first,
      end,
    ]);
  }

  add(y: Buffer, x: Buffer, length: number): void {
    checkLength("add y", y, length);
    checkLength("add x", x, length);
    const pointers = [addressOf(this, y), addressOf(this, x)];
    runSplit(this.runtime, "add", length, 16, length, (first, end) => [...pointers, first, end]);
  }

  softmax(x: Buffer, rows: number, columns: number): void {
    checkLength("softmax x", x, rows * columns);
    const pointer = addressOf(this, x);
    runSplit(this.runtime, "softmax", rows, 1, EXP_WORK * rows * columns, (first, end) => [
      pointer,
      columns,
      first,
      end,
    ]);
  }

  copy(x: Buffer, xOffset: number, y: Buffer, yOffset: number, length: number): void {
    checkRange("copy x", x.length, xOffset, length);
    checkRange("copy y", y.length, yOffset, length);
    this.#view(y).set(this.#view(x).subarray(xOffset, xOffset + length), yOffset);
  }

  rotate(options: Parameters<Backend["rotate"]>[0]): void {
    checkRotation(options);
    const { x, y, signs, q, m, rows, columns, inverse } = options;
    const pitch = Math.ceil((4 * columns) / 64) * 64;
    const area = this.#area.reserve(this.threads * pitch);
    const pointers = [x, y, signs, q].map((buffer) => addressOf(this, buffer));
    const work = rows * columns * (m + Math.log2(columns / m));
    runSplit(this.runtime, "rotate", rows, 1, work, (first, end, thread) => [
      ...pointers,
      m,
      columns,
      inverse ? 1 : 0,
      area + thread * pitch,
      first,
      end,
    ]);
  }

  trellisMatmul(x: Buffer, weight: TrellisWeights, y: Buffer, tokens: number, approximate = false): void {
    const { rows, columns, steps } = weight;
    checkLength("trellisMatmul x", x, tokens * columns);
    checkLength("trellisMatmul y", y, tokens * rows);
    const lookup = tokens <= LOOKUP_TOKENS;
    if (approximate && !lookup) {
      shortProducts(this, this.#area, { x, weight, y, tokens });
      return;
    }
    const plan = trellisPlan(weight, (buffer) => addressOf(this, buffer));
    const threadBytes = lookup ? plan.tableBytes : plan.tileBytes(tokens);
    const area = this.#area.reserve(plan.bytes + this.threads * threadBytes);
    const prepared = plan.prepare(this.runtime, area);
    const shared = [...prepared, rows, addressOf(this, x), addressOf(this, y), tokens];
    const work = tokens * rows * columns;
    runSplit(
      this.runtime,
      lookup ? "trellisLookup" : "trellisMatmul",
      LANES * steps,
      LANES,
      work,
      (first, end, thread) => {
        const own = area + plan.bytes + thread * threadBytes;
        if (lookup) return [...shared, own + LOOKUP_SUM_BYTES, own, first, end];
        const tile = own + SCRATCH_BYTES;
        const products = tile + plan.tileRows * plan.tileStride;
        return [...shared, tile, plan.tileRows, plan.tileStride, products, own, first, end];
      },
    );
  }

  trellisCodes(options: TrellisCodesOptions): WasmByteBuffer {
    const { address, bytes } = trellisCodes(this.runtime, options);
    return new WasmByteBuffer(this, address, bytes);
  }

  tokenProducts(options: TokenProductsOptions): TokenProducts {
    return new WasmTokenProducts(this, this.#area, options);
  }

  trellisGather(weight: TrellisWeights, ids: Int32Array, y: Buffer): void {
    const plan = trellisPlan(weight, (buffer) => addressOf(this, buffer));
    checkIds(ids, weight.rows);
    checkLength("trellisGather y", y, ids.length * weight.columns);
    const area = this.#area.reserve(plan.bytes + 4 * ids.length);
    const shared = plan.prepare(this.runtime, area);
    const list = area + plan.bytes;
    const positions = this.runtime.i32(list, ids.length);
    ids.forEach((id, i) => {
      positions[i] = weight.positions[id];
    });
    runSplit(this.runtime, "trellisGather", ids.length, 1, 4 * ids.length * weight.columns, (first, end) => [
      ...shared,
      list,
      addressOf(this, y),
      first,
      end,
    ]);
  }

  /**
   * h += xᵀ x: h[i][j] += Σ_t x[t][i] x[t][j]; x [tokens, columns], h [columns, columns] symmetric. A
   * calibration Hessian's sum, twice as fast as `crossGram(x, x, …)`.
   */
  gram(x: Buffer, h: Buffer, tokens: number, columns: number): void {
    this.#panels.gram(x, h, tokens, columns);
  }

  /** c += aᵀ b: c[i][j] += Σ_t a[t][i] b[t][j]; a [tokens, m], b [tokens, n] (n is m by default), c [m, n]. */
  crossGram(a: Buffer, b: Buffer, c: Buffer, tokens: number, m: number, n = m): void {
    this.#panels.crossGram(a, b, c, tokens, m, n);
  }

  /**
   * y += x w: y[t][j] += Σ_k x[t][k] w[k][j]; x [tokens, inner], w [inner, n], y [tokens, n]. What y holds is
   * overwritten instead where not to `accumulate`.
   */
  multiplyAdd(
    x: Buffer,
    w: Buffer,
    y: Buffer,
    tokens: number,
    inner: number,
    n: number,
    accumulate = true,
  ): void {
    this.#panels.multiplyAdd(x, w, y, tokens, inner, n, accumulate);
  }

  async close(): Promise<void> {
    await this.runtime.close();
  }

  #convertRows(
    kernel: "packCache" | "unpackCache",
    options: PackedRowsOptions,
    order: (x: number, cache: number) => number[],
  ): void {
    checkPackedRows(options);
    const { x, from = 0, cache, format, tokens, position, kvHeads, headSize } = options;
    const at = addressOf(this, cache) + position * packedRowBytes(format, headSize);
    const numbers = addressOf(this, x) + 4 * from * kvHeads * headSize;
    const capacity = packedCapacity(cache.byteLength, format, kvHeads, headSize);
    const shared = [...order(numbers, at), PACKED_FORMATS[format], kvHeads, capacity, headSize];
    const rows = tokens * kvHeads;
    runSplit(this.runtime, kernel, rows, 1, rows * headSize, (first, end) => [...shared, first, end]);
  }

  #view(buffer: Buffer): Float32Array {
    return this.runtime.f32(addressOf(this, buffer), buffer.length);
  }
}
