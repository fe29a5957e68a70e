/**
 * Products whose two sides are first packed into panels of eight (kernels/gram.ts): those with the reduction across
 * rows, and of backends with wide tiles all of many rows.
 */
import type { Buffer, MatmulOptions } from "../backend.js";
import { checkLength } from "../checks.js";
import type { WasmBackend } from "./backend.js";
import { addressOf } from "./buffers.js";
import { runSplit, threadsFor } from "./work.js";
import type { WorkingArea } from "./working-area.js";

/** From here on packing both sides of a `matmul` pays. */
const WIDE_TOKENS = 32;
/** Most of the reduction that is summed in registers before it is added: three panels of 8 columns stay in L1. */
const BLOCK = 288;
/** Of the area: a line of cache for what threads share, and one tile of each thread. */
const LINE = 64;
const TILE_BYTES = 256;

/** What the operations of the same names of `WasmBackend` do. */
export class PanelProducts {
  readonly #backend: WasmBackend;
  readonly #area: WorkingArea;
  readonly #wide: boolean;

  constructor(backend: WasmBackend, area: WorkingArea) {
    this.#backend = backend;
    this.#area = area;
    this.#wide = backend.runtime.arithmetic === "wide";
  }

  /** Whether `matmul` of that many tokens is for panels. */
  suit(tokens: number): boolean {
    return this.#wide && tokens >= WIDE_TOKENS;
  }

  gram(x: Buffer, h: Buffer, tokens: number, columns: number): void {
    this.#accumulate(x, x, h, tokens, columns, columns, true);
    const pointer = addressOf(this.#backend, h);
    runSplit(this.#backend.runtime, "mirrorUpper", columns, 16, columns * columns, (first, end) => [
      pointer,
      columns,
      first,
      end,
    ]);
  }

  crossGram(a: Buffer, b: Buffer, c: Buffer, tokens: number, m: number, n: number): void {
    this.#accumulate(a, b, c, tokens, m, n, false);
  }

  /** `matmul` by panels: faster for many rows where the engine joins vectors, since both sides are packed first. */
  matmul({ x, weight, bias, y, tokens, inputs, outputs }: MatmulOptions): void {
    if (bias) {
      const view = (buffer: Buffer, length: number) =>
        this.#backend.runtime.f32(addressOf(this.#backend, buffer), length);
      const to = view(y, tokens * outputs);
      const start = view(bias, outputs);
      for (let t = 0; t < tokens; t++) to.set(start, t * outputs);
    }
    this.#multiplyBlocks(
      y,
      [inputs, tokens, outputs],
      bias !== undefined,
      (k, count, out) => this.#packRows(x, [tokens, inputs], k, count, out),
      (k, count, out) => this.#packRows(weight, [outputs, inputs], k, count, out),
    );
  }

  multiplyAdd(
    x: Buffer,
    w: Buffer,
    y: Buffer,
    tokens: number,
    inner: number,
    n: number,
    accumulate: boolean,
  ): void {
    checkLength("multiplyAdd x", x, tokens * inner);
    checkLength("multiplyAdd w", w, inner * n);
    checkLength("multiplyAdd y", y, tokens * n);
    this.#multiplyBlocks(
      y,
      [inner, tokens, n],
      accumulate,
      (k, count, out) => this.#packRows(x, [tokens, inner], k, count, out),
      (k, count, out) => this.#pack(w, k, count, n, out),
    );
  }

  #accumulate(
    a: Buffer,
    b: Buffer,
    c: Buffer,
    tokens: number,
    m: number,
    n: number,
    symmetric: boolean,
  ): void {
    checkLength("gram a", a, tokens * m);
    checkLength("gram b", b, tokens * n);
    checkLength("gram c", c, m * n);
    this.#multiplyBlocks(
      c,
      [tokens, m, n],
      true,
      (t, count, out) => this.#pack(a, t, count, m, out),
      symmetric ? null : (t, count, out) => this.#pack(b, t, count, n, out),
    );
  }

  /**
   * c [m, n] += a product, or = where not to accumulate, a block of its reduction at a time: each side packs itself
   * into panels of 8. Without a right side it is the left one's again, and only the upper triangle of c is computed.
   */
  #multiplyBlocks(
    c: Buffer,
    [inner, m, n]: readonly [inner: number, m: number, n: number],
    accumulate: boolean,
    packLeft: (from: number, count: number, out: number) => void,
    packRight: ((from: number, count: number, out: number) => void) | null,
  ): void {
    // Of equal length, and of whole vectors.
    const block = 4 * Math.ceil(inner / Math.ceil(inner / BLOCK) / 4);
    const panelBytes = (columns: number) => Math.ceil(columns / 8) * block * 32;
    const { threads: most, runtime } = this.#backend;
    const shared = LINE + TILE_BYTES * most;
    const counter = this.#area.reserve(shared + panelBytes(m) + (packRight ? panelBytes(n) : 0));
    const left = counter + shared;
    const right = packRight ? left + panelBytes(m) : left;
    const to = addressOf(this.#backend, c);
    for (let k = 0; k < inner; k += block) {
      const count = Math.min(block, inner - k);
      packLeft(k, count, left);
      packRight?.(k, count, right);
      const threads = threadsFor(count * m * n, most);
      const flags = [packRight ? 0 : 1, this.#wide ? 1 : 0, accumulate || k > 0 ? 1 : 0];
      runtime.i32(counter, 1)[0] = 0;
      runtime.parallel(
        "multiplyPanels",
        Array.from({ length: threads }, (_, i) => [
          ...[left, right, to, count, m, n, ...flags],
          ...[counter, counter + LINE + TILE_BYTES * i],
        ]),
      );
    }
  }

  /** Columns k .. k + count - 1 of x [rows, columns], transposed, in panels of 8 rows. */
  #packRows(
    x: Buffer,
    [rows, columns]: readonly [number, number],
    k: number,
    count: number,
    out: number,
  ): void {
    const from = addressOf(this.#backend, x) + 4 * k;
    runSplit(this.#backend.runtime, "packRows", Math.ceil(rows / 8), 1, rows * count, (first, end) => [
      from,
      4 * columns,
      rows,
      count,
      out,
      first,
      end,
    ]);
  }

  #pack(x: Buffer, token: number, tokens: number, columns: number, out: number): void {
    const from = addressOf(this.#backend, x) + 4 * token * columns;
    runSplit(
      this.#backend.runtime,
      "packPanels",
      Math.ceil(columns / 8),
      1,
      tokens * columns,
      (first, end) => [from, 4 * columns, tokens, columns, out, first, end],
    );
  }
}
