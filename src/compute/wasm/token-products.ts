/** Products of one token with coded matrices by tables of bytes: what kernels/trellis-token.ts is given. */
import type { Buffer, ByteBuffer, TokenProduct, TokenProducts, TokenProductsOptions } from "../backend.js";
import { checkTokenProducts, trellisShape } from "../checks.js";
import type { WasmBackend } from "./backend.js";
import { addressOf } from "./buffers.js";
import { threadsFor } from "./work.js";
import type { WorkingArea } from "./working-area.js";

// Of the kernel: its classes and constants.
const PRODUCT_WORDS = 14;
const PLAN_WORDS = 3;
const UNIT_WORD = 11;
const TILE_BYTES = 64 * (64 + 64 + 32);
const PAIR_BYTES = 256;
/** Place of a thread's working area among the arguments. */
const AREA = 11;
const [PLAIN, NORMALISE, ACTIVATE] = [0, 1, 2];
/** Sums of up to four products stay below one, so that they fit int16. */
const FULL_SCALE = 32700;

export class WasmTokenProducts implements TokenProducts {
  readonly #backend: WasmBackend;
  readonly #area: WorkingArea;
  readonly #block: number;
  /** Arguments of each thread, the address of its working area among them. */
  readonly #args: readonly number[][];
  readonly #threadBytes: number;
  readonly #biases: readonly { y: Buffer; bias: Buffer; rows: number }[];

  constructor(backend: WasmBackend, area: WorkingArea, options: TokenProductsOptions) {
    checkTokenProducts(options);
    const { x, norm, up, rotation, products, accumulate } = options;
    const { columns } = products[0].weight;
    const address = (buffer: Buffer | ByteBuffer) => addressOf(backend, buffer);
    this.#backend = backend;
    this.#area = area;
    this.#biases = products.flatMap(({ bias, y, start = 0, weight: { rows } }) =>
      bias && accumulate ? [{ y: backend.view(y, start, rows), bias, rows }] : [],
    );
    const pairs = Math.max(...products.map(({ weight }) => trellisShape(weight).pairs));
    this.#threadBytes = Math.ceil((TILE_BYTES + PAIR_BYTES * pairs + 14 * columns + 128) / 64) * 64;
    const work = products.reduce((sum, { weight }) => sum + weight.rows * weight.columns, 0);
    const threads = threadsFor(work, backend.threads);
    this.#block = writeProducts(backend, products, accumulate === true);
    const other = norm ? address(norm.weight) : up ? address(up) : 0;
    const shared = [
      norm ? NORMALISE : up ? ACTIVATE : PLAIN,
      address(x),
      other,
      norm?.epsilon ?? 0,
      columns,
      address(rotation.signs),
      address(rotation.q),
      rotation.m,
      this.#block,
      products.length,
      pairs,
    ];
    this.#args = Array.from({ length: threads }, (_, thread) => [...shared, 0, thread, threads]);
  }

  run(): void {
    const area = this.#area.reserve(this.#backend.threads * this.#threadBytes);
    if (this.#args[0][AREA] !== area)
      this.#args.forEach((args, thread) => {
        args[AREA] = area + thread * this.#threadBytes;
      });
    this.#backend.runtime.parallel("tokenProducts", this.#args);
    for (const { y, bias, rows } of this.#biases) this.#backend.add(y, bias, rows);
  }

  free(): void {
    this.#backend.runtime.free(this.#block);
  }
}

/** The descriptions of all products, with plans and int16 tables, in a block of the runtime's memory. */
function writeProducts(backend: WasmBackend, products: readonly TokenProduct[], accumulate: boolean): number {
  const { runtime } = backend;
  const address = (buffer: Buffer | ByteBuffer) => addressOf(backend, buffer);
  const words = products.map(({ weight: { widths } }) => {
    const tables = [...new Set(widths)].reduce((sum, width) => sum + 16 * width, 0);
    return Math.ceil((PLAN_WORDS * widths.length) / 4) * 4 + tables;
  });
  const block = runtime.allocate(
    4 * words.reduce((a, b) => a + b, Math.ceil((PRODUCT_WORDS * products.length) / 4) * 4),
  );
  let plan = block + 16 * Math.ceil((PRODUCT_WORDS * products.length) / 4);
  let previous: TokenProduct["weight"] | undefined;
  products.forEach(({ weight, bias, y, start = 0 }, i) => {
    const { widths, steps, tileSteps, columns } = weight;
    const tables = runtime.f32(address(weight.tables), weight.tables.length);
    const { distinct, pairs } = trellisShape(weight);
    const scale = FULL_SCALE / largestRow(tables, distinct);
    const entries = new Map<number, [tables: number, maps: number]>();
    let from = 0;
    let to = plan + 16 * Math.ceil((PLAN_WORDS * widths.length) / 4);
    distinct.forEach((width, kind) => {
      entries.set(width, [to, address(weight.maps) + 32 * kind]);
      const byColumn = runtime.i16(to, 32 * width);
      for (let v = 0; v < width; v++)
        for (let entry = 0; entry < 32; entry++)
          byColumn[32 * v + entry] = Math.round(scale * tables[from + entry * width + v]);
      from += 32 * width;
      to += 64 * width;
    });
    const steps12 = runtime.i32(plan, PLAN_WORDS * widths.length);
    widths.forEach((width, position) => {
      steps12.set([width, ...entries.get(width)!], PLAN_WORDS * position);
    });
    const product = block + 4 * PRODUCT_WORDS * i;
    const target = address(y) + 4 * start;
    const base = accumulate ? target : bias ? address(bias) : 0;
    const same = previous !== undefined && sameTables(backend, previous, weight);
    runtime
      .i32(product, PRODUCT_WORDS)
      .set([
        address(weight.codes),
        steps,
        tileSteps,
        columns,
        pairs,
        address(weight.rowAt),
        address(weight.scales),
        target,
        base,
        plan,
        widths.length,
        0,
        same ? 1 : 0,
        widths.length === 1 && areSplit(runtime.u8(address(weight.maps), 32)) ? 1 : 0,
      ]);
    // Tables count in 1 / scale, inputs in 1 / 32767; a product of the two is divided by 32768, and so is that
    // with the factor that makes bytes.
    runtime.f32(product, PRODUCT_WORDS)[UNIT_WORD] = 32768 ** 2 / (32767 * scale);
    plan += 4 * words[i];
    previous = weight;
  });
  return block;
}

/** Whether S1 of maps S1, S2 has high nibbles only and S2 low ones. */
function areSplit(maps: Uint8Array): boolean {
  return maps.every((image, i) => (image & (i < 16 ? 0x0f : 0xf0)) === 0);
}

/** The largest sum of magnitudes of a vector of A or B, 1 if all are 0. */
function largestRow(tables: Float32Array, distinct: readonly number[]): number {
  let largest = 0;
  let at = 0;
  for (const width of distinct)
    for (let entry = 0; entry < 32; entry++, at += width)
      largest = Math.max(
        largest,
        tables.subarray(at, at + width).reduce((sum, value) => sum + Math.abs(value), 0),
      );
  return largest || 1;
}

function sameTables(backend: WasmBackend, a: TokenProduct["weight"], b: TokenProduct["weight"]): boolean {
  if (a.widths.join() !== b.widths.join() || a.tables.length !== b.tables.length) return false;
  const { runtime } = backend;
  const of = ({ tables }: TokenProduct["weight"]) => runtime.f32(addressOf(backend, tables), tables.length);
  const [first, second] = [of(a), of(b)];
  return first.every((value, i) => value === second[i]);
}
