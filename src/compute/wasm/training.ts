/**
 * Training on the WASM backend: the SIMD kernels of kernels/training on its threads. Calls run at once and block
 * until done. Results are bit for bit the same for any number of threads.
 */
import type { Buffer, RopeOptions } from "../backend.js";
import { checkAttention, checkIds, checkLength, checkRope } from "../checks.js";
import type {
  AdamWOptions,
  AttentionBackwardOptions,
  MatmulBackwardInputOptions,
  MatmulBackwardWeightOptions,
  RmsNormBackwardOptions,
  TrainingBackend,
} from "../training.js";
import type { WasmBackend } from "./backend.js";
import { addressOf } from "./buffers.js";
import { splitRange, threadsFor } from "./work.js";

/** Elements that one line of cache holds: splits fall between lines, and between lanes. */
const LINE = 16;
/** An exponential costs about as much as this many multiplications. */
const EXP_WORK = 8;
/** Elements of one partial sum of squares (CHUNK in kernels/training/optimizer.ts). */
const SQUARES_CHUNK = 1 << 16;
/** Blocks of attention's gradient (ROWS and KEYS in kernels/training/attention-*.ts). */
const ATTENTION_ROWS = 32;
const QUERY_PASS_KEYS = 64;
const KEY_PASS_KEYS = 32;
/** Products of the size of queries times keys that attention's gradient makes in its two passes. */
const ATTENTION_PRODUCTS = 7;

export class WasmTraining implements TrainingBackend {
  readonly #backend: WasmBackend;
  /** One working area, grown as needed, that every operation overwrites. */
  #area = 0;
  #areaBytes = 0;

  /** Works on the buffers, the memory and the threads of `backend`. */
  constructor(backend: WasmBackend) {
    this.#backend = backend;
  }

  /** Gives the working memory back to the backend. The next operation that needs some takes it again. */
  free(): void {
    if (this.#areaBytes > 0) this.#backend.runtime.free(this.#area);
    this.#areaBytes = 0;
  }

  matmulBackwardInput(options: MatmulBackwardInputOptions): void {
    const { dy, weight, dx, tokens, inputs, outputs, accumulate } = options;
    checkLength("matmulBackwardInput dy", dy, tokens * outputs);
    checkLength("matmulBackwardInput weight", weight, outputs * inputs);
    checkLength("matmulBackwardInput dx", dx, tokens * inputs);
    if (!accumulate) this.zero(dx, tokens * inputs);
    this.#backend.multiplyAdd(dy, weight, dx, tokens, outputs, inputs);
  }

  matmulBackwardWeight(options: MatmulBackwardWeightOptions): void {
    const { dy, x, dWeight, tokens, inputs, outputs } = options;
    checkLength("matmulBackwardWeight dy", dy, tokens * outputs);
    checkLength("matmulBackwardWeight x", x, tokens * inputs);
    checkLength("matmulBackwardWeight dWeight", dWeight, outputs * inputs);
    this.#backend.crossGram(dy, x, dWeight, tokens, outputs, inputs);
  }

  rmsNormBackward(options: RmsNormBackwardOptions): void {
    const { x, weight, dy, dx, dWeight, rows, columns, epsilon } = options;
    checkLength("rmsNormBackward x", x, rows * columns);
    checkLength("rmsNormBackward weight", weight, columns);
    checkLength("rmsNormBackward dy", dy, rows * columns);
    checkLength("rmsNormBackward dx", dx, rows * columns);
    if (dWeight) checkLength("rmsNormBackward dWeight", dWeight, columns);
    const shared = this.#addresses(x, weight, dy, dx);
    const scales = this.#reserve(4 * rows);
    this.#split("rmsNormBackward", rows, 1, 2 * rows * columns, (first, end) => [
      ...shared,
      scales,
      columns,
      epsilon,
      first,
      end,
    ]);
    if (dWeight) this.#columnDots(...this.#addresses(dy, x), scales, dWeight, rows, columns);
  }

  ropeBackward(options: RopeOptions): void {
    checkRope(options);
    const { runtime } = this.#backend;
    const { tokens, position, heads, headSize } = options;
    const half = headSize / 2;
    const start = 4 * position * half;
    const [x, cosines, sines] = this.#addresses(options.x, options.cosines, options.sines);
    // Back is the rotation by the negative angle: the forward kernel with the sines' signs turned.
    const negated = this.#reserve(4 * tokens * half);
    const to = runtime.f32(negated, tokens * half);
    const from = runtime.f32(sines + start, tokens * half);
    for (let i = 0; i < to.length; i++) to[i] = -from[i];
    this.#split("rope", tokens, 1, tokens * heads * headSize, (first, end) => [
      x,
      cosines + start,
      negated,
      heads,
      headSize,
      first,
      end,
    ]);
  }

  attentionBackward(options: AttentionBackwardOptions): void {
    const { tokens, heads, kvHeads, headSize, scale } = options;
    checkAttention({ ...options, position: 0 });
    checkLength("attentionBackward dy", options.dy, tokens * heads * headSize);
    checkLength("attentionBackward dQuery", options.dQuery, tokens * heads * headSize);
    checkLength("attentionBackward dKeys", options.dKeys, tokens * kvHeads * headSize);
    checkLength("attentionBackward dValues", options.dValues, tokens * kvHeads * headSize);
    const [query, keys, values] = this.#addresses(options.query, options.keys, options.values);
    const [y, dy, dQuery] = this.#addresses(options.y, options.dy, options.dQuery);
    const [dKeys, dValues] = this.#addresses(options.dKeys, options.dValues);

    const window = Math.min(options.window ?? 0x7fffffff, 0x7fffffff);
    const span = Math.min(tokens, window + ATTENTION_ROWS);
    const work = ATTENTION_PRODUCTS * tokens * span * heads * headSize;
    const threads = threadsFor(work, this.#backend.threads);
    const queryPass = ATTENTION_ROWS * (3 * headSize + QUERY_PASS_KEYS + 3 + span);
    const keyPass = 2 * (KEY_PASS_KEYS + ATTENTION_ROWS) * headSize + 2 * KEY_PASS_KEYS * headSize;
    const threadFloats = Math.max(queryPass, keyPass + 2 * ATTENTION_ROWS * KEY_PASS_KEYS);
    const pitch = Math.ceil(threadFloats / LINE) * LINE * 4;
    const statisticsBytes = Math.ceil((3 * tokens * heads) / LINE) * LINE * 4;
    const statistics = this.#reserve(statisticsBytes + threads * pitch);
    const scratch = statistics + statisticsBytes;
    const run = (kernel: string, pointers: number[]) => {
      const shared = [...pointers, statistics, tokens, heads, kvHeads, headSize, scale, window];
      this.#backend.runtime.parallel(
        kernel,
        Array.from({ length: threads }, (_, t) => [...shared, scratch + t * pitch, t, threads]),
      );
    };
    run("attentionBackwardQueries", [query, keys, values, y, dy, dQuery]);
    run("attentionBackwardKeys", [query, keys, values, dy, dKeys, dValues]);
  }

  siluMultiplyBackward(options: Parameters<TrainingBackend["siluMultiplyBackward"]>[0]): void {
    const { gate, up, dy, dGate, dUp, length } = options;
    for (const name of ["gate", "up", "dy", "dGate", "dUp"] as const)
      checkLength(`siluMultiplyBackward ${name}`, options[name], length);
    const pointers = this.#addresses(gate, up, dy, dGate, dUp);
    this.#split("siluMultiplyBackward", length, LINE, EXP_WORK * length, (first, end) => [
      ...pointers,
      first,
      end,
    ]);
  }

  columnDots(a: Buffer, b: Buffer | undefined, sum: Buffer, rows: number, columns: number): void {
    checkLength("columnDots a", a, rows * columns);
    if (b) checkLength("columnDots b", b, rows * columns);
    checkLength("columnDots sum", sum, columns);
    const [left] = this.#addresses(a);
    this.#columnDots(left, b ? addressOf(this.#backend, b) : 0, 0, sum, rows, columns);
  }

  crossEntropy(options: Parameters<TrainingBackend["crossEntropy"]>[0]): void {
    const { logits, targets, loss, rows, columns, scale } = options;
    checkLength("crossEntropy logits", logits, rows * columns);
    checkLength("crossEntropy targets", targets, rows);
    checkLength("crossEntropy loss", loss, rows);
    for (const target of targets)
      if (target < -1 || target >= columns) throw new RangeError(`crossEntropy: ${target} of ${columns}`);
    const [from, to] = this.#addresses(logits, loss);
    const list = this.#upload(targets.subarray(0, rows));
    this.#split("crossEntropy", rows, 1, EXP_WORK * rows * columns, (first, end) => [
      from,
      list,
      to,
      columns,
      scale,
      first,
      end,
    ]);
  }

  divergence(options: Parameters<TrainingBackend["divergence"]>[0]): void {
    const { reference, logits, loss, rows, columns, scale } = options;
    checkLength("divergence reference", reference, rows * columns);
    checkLength("divergence logits", logits, rows * columns);
    checkLength("divergence loss", loss, rows);
    const pointers = this.#addresses(reference, logits, loss);
    this.#split("divergence", rows, 1, 2 * EXP_WORK * rows * columns, (first, end) => [
      ...pointers,
      columns,
      scale,
      first,
      end,
    ]);
  }

  scatterAdd(dTable: Buffer, ids: Int32Array, columns: number, dy: Buffer): void {
    checkIds(ids, Math.floor(dTable.length / columns));
    checkLength("scatterAdd dy", dy, ids.length * columns);
    const [to, from] = this.#addresses(dTable, dy);
    const list = this.#upload(ids);
    // Over columns: one id may come twice, and its additions must stay in order.
    this.#split("scatterAdd", columns, LINE, ids.length * columns, (first, end) => [
      to,
      list,
      from,
      ids.length,
      columns,
      first,
      end,
    ]);
  }

  scale(x: Buffer, factor: number, length: number): void {
    checkLength("scale x", x, length);
    const [pointer] = this.#addresses(x);
    this.#split("scaleElements", length, LINE, length, (first, end) => [pointer, factor, first, end]);
  }

  zero(x: Buffer, length: number): void {
    checkLength("zero x", x, length);
    const [pointer] = this.#addresses(x);
    this.#split("zeroElements", length, LINE, length, (first, end) => [pointer, first, end]);
  }

  async sumSquares(x: Buffer, length: number): Promise<number> {
    checkLength("sumSquares x", x, length);
    const [pointer] = this.#addresses(x);
    const chunks = Math.ceil(length / SQUARES_CHUNK);
    const sums = this.#reserve(8 * chunks);
    this.#split("sumSquares", chunks, 1, length, (first, end) => [pointer, sums, length, first, end]);
    return new Float64Array(this.#backend.runtime.memory.buffer, sums, chunks).reduce((a, b) => a + b, 0);
  }

  adamW(options: AdamWOptions): void {
    const { parameter, gradient, mean, square, length, learningRate, beta1, beta2, step } = options;
    for (const name of ["parameter", "gradient", "mean", "square"] as const)
      checkLength(`adamW ${name}`, options[name], length);
    const shared = [
      ...this.#addresses(parameter, gradient, mean, square),
      options.gradientScale,
      1 - beta1,
      1 - beta2,
      learningRate * options.weightDecay,
      learningRate / (1 - beta1 ** step),
      1 / (1 - beta2 ** step),
      options.epsilon,
    ];
    this.#split("adamW", length, LINE, EXP_WORK * length, (first, end) => [...shared, first, end]);
  }

  /** Addresses `a`, `b` and `scales`; the latter two may be 0: see the kernel. */
  #columnDots(a: number, b: number, scales: number, sum: Buffer, rows: number, columns: number): void {
    const pointers = [a, b, scales, ...this.#addresses(sum)];
    this.#split("columnDots", columns, LINE, rows * columns, (first, end) => [
      ...pointers,
      rows,
      columns,
      first,
      end,
    ]);
  }

  #addresses<T extends Buffer[]>(...buffers: T): { [I in keyof T]: number };
  #addresses(...buffers: Buffer[]): number[] {
    return buffers.map((buffer) => addressOf(this.#backend, buffer));
  }

  /** Runs a kernel over `units` on as many threads as `work` is worth. */
  #split(
    kernel: string,
    units: number,
    grain: number,
    work: number,
    args: (first: number, end: number) => number[],
  ): void {
    const ranges = splitRange(units, grain, threadsFor(work, this.#backend.threads));
    this.#backend.runtime.parallel(
      kernel,
      ranges.map(([first, end]) => args(first, end)),
    );
  }

  /** The address of a copy of `values`, good until the next operation. */
  #upload(values: Int32Array): number {
    const area = this.#reserve(4 * values.length);
    this.#backend.runtime.i32(area, values.length).set(values);
    return area;
  }

  /** The address of `bytes` of working memory, good until the next operation. */
  #reserve(bytes: number): number {
    if (bytes > this.#areaBytes) {
      this.free();
      this.#area = this.#backend.runtime.allocate(bytes);
      this.#areaBytes = bytes;
    }
    return this.#area;
  }
}
