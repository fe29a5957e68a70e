/** `trellisMatmul` in whole numbers of 16 bits (kernels/trellis-short.ts). */
import type { Buffer, TrellisWeights } from "../backend.js";
import { trellisShape } from "../checks.js";
import { LANES } from "../trellis-lanes.js";
import type { WasmBackend } from "./backend.js";
import { addressOf } from "./buffers.js";
import { PLAN_ENTRY_BYTES, rowsOfTile } from "./trellis.js";
import { runSplit, threadsFor } from "./work.js";
import type { WorkingArea } from "./working-area.js";

/** Of a matrix's weights, rounded; activations get what is left of 31 bits. */
const WEIGHT_LARGEST = 2047;
/** Columns to a sum: with more, activations would have fewer bits. */
const BLOCK = 1536;
/** |w . x| is at most |w| |x|, and this; a little less than 2^31 for what rounding adds. */
const SUM_LARGEST = 2 ** 30.9;

/** What decoding a tile works in, and then a tile of products. */
const SCRATCH_BYTES = 256;
const LINE = 64;

const lines = (bytes: number) => Math.ceil(bytes / LINE) * LINE;

/** Lengths are checked by the caller. */
export function shortProducts(
  backend: WasmBackend,
  area: WorkingArea,
  { x, y, weight, tokens }: { x: Buffer; y: Buffer; weight: TrellisWeights; tokens: number },
): void {
  const { runtime, threads } = backend;
  const { rows, columns, widths, steps, tileSteps } = weight;
  const { distinct, pairs } = trellisShape(weight);
  // One cache line more than the row, so that rows of a tile never fall in one set of L1.
  const stride = lines(2 * columns) + LINE;
  // Several tiles for each thread, as far as there are rows.
  const share = LANES * Math.max(1, Math.floor(steps / (4 * threads)));
  const tileRows = Math.min(rowsOfTile(stride), share);
  const planBytes = lines(widths.length * PLAN_ENTRY_BYTES);
  const groupBytes = (width: number) => 256 * 2 * width;
  const tablesBytes = distinct.reduce((sum, width) => sum + groupBytes(width), 0);
  const tileBytes = SCRATCH_BYTES + tileRows * stride + lines(4 * tokens * tileRows);
  const counter = area.reserve(
    LINE + planBytes + tablesBytes + tokens * stride + lines(4 * tokens) + threads * tileBytes,
  );
  const plan = counter + LINE;
  const tables = plan + planBytes;
  const input = tables + tablesBytes;
  const units = input + tokens * stride;
  const tiles = units + lines(4 * tokens);

  const address = (buffer: TrellisWeights["codes"] | Buffer) => addressOf(backend, buffer);
  const factor =
    WEIGHT_LARGEST / largestWeight(runtime.f32(address(weight.tables), weight.tables.length), distinct);
  const entries = new Map<number, [groups: number, maps: number]>();
  let from = address(weight.tables);
  let to = tables;
  for (const [i, width] of distinct.entries()) {
    runtime.exports["trellisExpandShort"](from, width, factor, to);
    entries.set(width, [to, address(weight.maps) + i * 32]);
    from += 32 * width * 4;
    to += groupBytes(width);
  }
  const words = runtime.i32(plan, widths.length * (PLAN_ENTRY_BYTES / 4));
  for (const [i, width] of widths.entries())
    words.set([width, ...entries.get(width)!], i * (PLAN_ENTRY_BYTES / 4));

  const longest = SUM_LARGEST / (WEIGHT_LARGEST * Math.sqrt(Math.min(columns, BLOCK)));
  const source = address(x);
  runSplit(runtime, "shortRows", tokens, 1, 2 * tokens * columns, (first, end) => [
    ...[source, columns, longest, 1 / factor, input, stride, units],
    ...[first, end],
  ]);
  const codes = [address(weight.codes), steps, tileSteps, pairs];
  const coded = [...codes, columns, plan, widths.length, address(weight.rowAt)];
  const inputs = [input, stride, units, BLOCK, runtime.joined ? 1 : 0];
  const shared = [...coded, address(weight.scales), rows, ...inputs, address(y), tokens];
  runtime.i32(counter, 1)[0] = 0;
  runtime.parallel(
    "trellisMatmulShort",
    Array.from({ length: threadsFor(tokens * rows * columns, threads) }, (_, thread) => {
      const own = tiles + thread * tileBytes;
      const tile = own + SCRATCH_BYTES;
      return [...shared, tile, tileRows, stride, tile + tileRows * stride, own, counter];
    }),
  );
}

/** Of a matrix without its scales, or a little more: the largest of A and of B by column. 1 if all are 0. */
function largestWeight(tables: Float32Array, distinct: readonly number[]): number {
  let largest = 0;
  let at = 0;
  for (const width of distinct) {
    for (let v = 0; v < width; v++) {
      const halves = [0, 16].map((first) => {
        let most = 0;
        for (let i = first; i < first + 16; i++) most = Math.max(most, Math.abs(tables[at + i * width + v]));
        return most;
      });
      largest = Math.max(largest, halves[0] + halves[1]);
    }
    at += 32 * width;
  }
  return largest || 1;
}
