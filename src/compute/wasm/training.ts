/**
 * Training on the WASM backend: the SIMD kernels of kernels/training on its threads. Calls run at once and block
 * until done. Results are bit for bit the same for any number of threads.
 */
import type { Buffer, RopeOptions } from "../backend.js";
import { checkLength, checkRope } from "../checks.js";
import type {
  AdamWOptions,
  AttentionBackwardOptions,
  MatmulBackwardInputOptions,
  MatmulBackwardWeightOptions,
  RmsNormBackwardOptions,
  TrainingBackend,
} from "../training.js";
import {
  checkAdamW,
  checkAttentionBackward,
  checkColumnDots,
  checkCrossEntropy,
  checkDivergence,
  checkMatmulBackwardInput,
  checkMatmulBackwardWeight,
  checkRmsNormBackward,
  checkScatterAdd,
  checkSiluMultiplyBackward,
} from "../training-checks.js";
import type { WasmBackend } from "./backend.js";
import { addressOf } from "./buffers.js";
import { runSplit, threadsFor } from "./work.js";
import { WorkingArea } from "./working-area.js";

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
  readonly #area: WorkingArea;

  /** Works on the buffers, the memory and the threads of `backend`. */
  constructor(backend: WasmBackend) {
    this.#backend = backend;
    this.#area = new WorkingArea(backend.runtime);
  }

  /** Gives the working memory back to the backend. The next operation that needs some takes it again. */
  free(): void {
    this.#area.free();
  }

  matmulBackwardInput(options: MatmulBackwardInputOptions): void {
    const { dy, weight, dx, tokens, inputs, outputs, accumulate = false } = options;
    checkMatmulBackwardInput(options);
    this.#backend.multiplyAdd(dy, weight, dx, tokens, outputs, inputs, accumulate);
  }

  matmulBackwardWeight(options: MatmulBackwardWeightOptions): void {
    const { dy, x, dWeight, tokens, inputs, outputs } = options;
    checkMatmulBackwardWeight(options);
    this.#backend.crossGram(dy, x, dWeight, tokens, outputs, inputs);
  }

  rmsNormBackward(options: RmsNormBackwardOptions): void {
    const { x, weight, dy, dx, dWeight, rows, columns, epsilon } = options;
    checkRmsNormBackward(options);
    const shared = this.#addresses(x, weight, dy, dx);
    const scales = this.#area.reserve(4 * rows);
    runSplit(this.#backend.runtime, "rmsNormBackward", rows, 1, 2 * rows * columns, (first, end) => [
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
    const negated = this.#area.reserve(4 * tokens * half);
    const to = runtime.f32(negated, tokens * half);
    const from = runtime.f32(sines + start, tokens * half);
    for (let i = 0; i < to.length; i++) to[i] = -from[i];
    runSplit(this.#backend.runtime, "rope", tokens, 1, tokens * heads * headSize, (first, end) => [
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
    checkAttentionBackward(options);
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
    const statistics = this.#area.reserve(statisticsBytes + threads * pitch);
    const scratch = statistics + statisticsBytes;
    const wide = this.#backend.runtime.arithmetic === "wide" ? 1 : 0;
    const run = (kernel: string, pointers: number[]) => {
      const shared = [...pointers, statistics, tokens, heads, kvHeads, headSize, scale, window];
      this.#backend.runtime.parallel(
        kernel,
        Array.from({ length: threads }, (_, t) => [...shared, scratch + t * pitch, t, threads, wide]),
      );
    };
    run("attentionBackwardQueries", [query, keys, values, y, dy, dQuery]);
    run("attentionBackwardKeys", [query, keys, values, dy, dKeys, dValues]);
  }

  siluMultiplyBackward(options: Parameters<TrainingBackend["siluMultiplyBackward"]>[0]): void {
    const { gate, up, dy, dGate, dUp, length } = options;
    checkSiluMultiplyBackward(options);
    const pointers = this.#addresses(gate, up, dy, dGate, dUp);
    runSplit(this.#backend.runtime, "siluMultiplyBackward", length, LINE, EXP_WORK * length, (first, end) => [
      ...pointers,
      first,
      end,
    ]);
  }

  columnDots(a: Buffer, b: Buffer | undefined, sum: Buffer, rows: number, columns: number): void {
    checkColumnDots(a, b, sum, rows, columns);
    const [left] = this.#addresses(a);
    this.#columnDots(left, b ? addressOf(this.#backend, b) : 0, 0, sum, rows, columns);
  }

  crossEntropy(options: Parameters<TrainingBackend["crossEntropy"]>[0]): void {
    const { logits, targets, loss, rows, columns, scale } = options;
    checkCrossEntropy(options);
    const [from, to] = this.#addresses(logits, loss);
    const list = this.#upload(targets.subarray(0, rows));
    runSplit(this.#backend.runtime, "crossEntropy", rows, 1, EXP_WORK * rows * columns, (first, end) => [
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
    checkDivergence(options);
    const pointers = this.#addresses(reference, logits, loss);
    runSplit(this.#backend.runtime, "divergence", rows, 1, 2 * EXP_WORK * rows * columns, (first, end) => [
      ...pointers,
      columns,
      scale,
      first,
      end,
    ]);
  }

  scatterAdd(dTable: Buffer, ids: Int32Array, columns: number, dy: Buffer): void {
    checkScatterAdd(dTable, ids, columns, dy);
    const [to, from] = this.#addresses(dTable, dy);
    const list = this.#upload(ids);
    // Over columns: one id may come twice, and its additions must stay in order.
    runSplit(this.#backend.runtime, "scatterAdd", columns, LINE, ids.length * columns, (first, end) => [
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
    runSplit(this.#backend.runtime, "scaleElements", length, LINE, length, (first, end) => [
      pointer,
      factor,
      first,
      end,
    ]);
  }

  zero(x: Buffer, length: number): void {
    checkLength("zero x", x, length);
    const [pointer] = this.#addresses(x);
    runSplit(this.#backend.runtime, "zeroElements", length, LINE, length, (first, end) => [
      pointer,
      first,
      end,
    ]);
  }

  async sumSquares(x: Buffer, length: number): Promise<number> {
    checkLength("sumSquares x", x, length);
    const [pointer] = this.#addresses(x);
    const chunks = Math.ceil(length / SQUARES_CHUNK);
    const sums = this.#area.reserve(8 * chunks);
    runSplit(this.#backend.runtime, "sumSquares", chunks, 1, length, (first, end) => [
      pointer,
      sums,
      length,
      first,
      end,
    ]);
    return new Float64Array(this.#backend.runtime.memory.buffer, sums, chunks).reduce((a, b) => a + b, 0);
  }

  adamW(options: AdamWOptions): void {
    const { parameter, gradient, mean, square, length, learningRate, beta1, beta2, step } = options;
    checkAdamW(options);
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
    runSplit(this.#backend.runtime, "adamW", length, LINE, EXP_WORK * length, (first, end) => [
      ...shared,
      first,
      end,
    ]);
  }

  /** Addresses `a`, `b` and `scales`; the latter two may be 0: see the kernel. */
  #columnDots(a: number, b: number, scales: number, sum: Buffer, rows: number, columns: number): void {
    const pointers = [a, b, scales, ...this.#addresses(sum)];
    runSplit(this.#backend.runtime, "columnDots", columns, LINE, rows * columns, (first, end) => [
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

  /** The address of a copy of `values`, good until the next operation. */
  #upload(values: Int32Array): number {
    const area = this.#area.reserve(4 * values.length);
    this.#backend.runtime.i32(area, values.length).set(values);
    return area;
  }
}
