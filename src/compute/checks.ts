/**
 * Checks of operation arguments, shared by all backends so that each refuses the same calls. They cost a few
 * comparisons a call, and a kernel that runs past a buffer would damage another one silently.
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
  TokenProductsOptions,
  TrellisWeights,
} from "./backend.js";
import { type PackedFormat, packedRowBytes } from "./kv-format.js";
import { LANES, PREFIX } from "./trellis-lanes.js";

/** Throws RangeError unless the buffer has at least `length` elements and `length` is a size. */
export function checkLength(name: string, buffer: Buffer, length: number): void {
  if (!(Number.isSafeInteger(length) && length >= 0 && length <= buffer.length))
    throw new RangeError(`${name} needs ${length} elements and has ${buffer.length}`);
}

/** Throws RangeError unless `offset .. offset + length` lies inside the buffer. */
export function checkRange(name: string, size: number, offset: number, length: number): void {
  if (
    !(Number.isInteger(offset) && Number.isInteger(length)) ||
    offset < 0 ||
    length < 0 ||
    offset + length > size
  )
    throw new RangeError(`${name}: ${length} elements from ${offset} are not inside its ${size}`);
}

export function checkMatmul({ x, weight, bias, y, tokens, inputs, outputs }: MatmulOptions): void {
  checkLength("matmul x", x, tokens * inputs);
  checkLength("matmul weight", weight, outputs * inputs);
  checkLength("matmul y", y, tokens * outputs);
  if (bias) checkLength("matmul bias", bias, outputs);
}

export function checkIds(ids: Int32Array, rows: number): void {
  for (const id of ids) if (id < 0 || id >= rows) throw new RangeError(`gather: row ${id} of ${rows}`);
}

export function checkRope({ x, cosines, sines, tokens, position, heads, headSize }: RopeOptions): void {
  if (headSize % 2 !== 0) throw new RangeError(`rope: odd head size ${headSize}`);
  checkLength("rope x", x, tokens * heads * headSize);
  checkLength("rope cosines", cosines, ((position + tokens) * headSize) / 2);
  checkLength("rope sines", sines, ((position + tokens) * headSize) / 2);
}

export function checkAttention(options: AttentionOptions): void {
  const { query, keys, values, y, tokens, position, heads, kvHeads, headSize, window } = options;
  if (kvHeads < 1 || heads % kvHeads !== 0)
    throw new RangeError(`attention: ${heads} heads, ${kvHeads} kv heads`);
  if (window !== null && window < 1) throw new RangeError(`attention: window of ${window} tokens`);
  checkLength("attention query", query, tokens * heads * headSize);
  const rows = (position + tokens) * kvHeads;
  checkCache("attention keys", keys, options.packed, rows, headSize);
  checkCache("attention values", values, options.packed, rows, headSize);
  if (
    options.packed &&
    "byteLength" in keys &&
    "byteLength" in values &&
    keys.byteLength !== values.byteLength
  )
    throw new RangeError(`attention: ${keys.byteLength} bytes of keys, ${values.byteLength} of values`);
  checkLength("attention y", y, tokens * heads * headSize);
}

/** Throws unless keys or values hold `rows` rows. */
function checkCache(
  name: string,
  cache: Buffer | ByteBuffer,
  packed: PackedFormat | undefined,
  rows: number,
  headSize: number,
): void {
  if (packed) checkPacked(name, cache, packed, rows, headSize);
  else if ("length" in cache) checkLength(name, cache, rows * headSize);
  else throw new TypeError(`${name}: bytes without a format`);
}

export function checkAttendEach({ query, key, value, y, sequences, ...shape }: AttendEachOptions): void {
  const { heads, kvHeads, headSize } = shape;
  const count = sequences.length;
  checkLength("attendEach query", query, count * heads * headSize);
  checkLength("attendEach key", key, count * kvHeads * headSize);
  checkLength("attendEach value", value, count * kvHeads * headSize);
  checkLength("attendEach y", y, count * heads * headSize);
  for (const sequence of sequences) checkAttention({ query, y, tokens: 1, ...shape, ...sequence });
}

export function checkPackedRows(options: PackedRowsOptions): void {
  const { x, from = 0, cache, format, tokens, position, kvHeads, headSize } = options;
  checkLength("packed rows x", x, (from + tokens) * kvHeads * headSize);
  checkPacked("packed rows", cache, format, (position + tokens) * kvHeads, headSize);
}

/** Throws unless the bytes hold `rows` packed rows. */
function checkPacked(
  name: string,
  cache: Buffer | ByteBuffer,
  format: PackedFormat,
  rows: number,
  headSize: number,
): void {
  const bytes = rows * packedRowBytes(format, headSize);
  if (!("byteLength" in cache && Number.isSafeInteger(bytes) && bytes >= 0 && bytes <= cache.byteLength))
    throw new RangeError(`${name} need ${bytes} bytes of ${format}`);
}

export function checkRotation({ x, y, signs, q, m, rows, columns }: Parameters<Backend["rotate"]>[0]): void {
  const order = columns / m;
  if (!(order >= 1 && Number.isInteger(Math.log2(order))))
    throw new RangeError(`rotate: ${columns} columns are not ${m} times a power of two`);
  checkLength("rotate x", x, rows * columns);
  checkLength("rotate y", y, rows * columns);
  checkLength("rotate signs", signs, columns);
  checkLength("rotate q", q, m * m);
}

/** Sizes of a coded matrix that follow from its shape. */
export interface TrellisShape {
  readonly groups: number;
  readonly pairs: number;
  /** Distinct widths, ascending: the order of tables and maps. */
  readonly distinct: readonly number[];
}

/** Throws RangeError if the parts of a coded matrix do not fit together. */
export function trellisShape(weight: TrellisWeights): TrellisShape {
  const { rows, columns, widths, steps, tileSteps } = weight;
  if (widths.length === 0 || widths.some((w) => !Number.isInteger(w) || w < 1 || w > 4))
    throw new RangeError(`trellis: group widths ${widths.join(", ")} are not 1 to 4`);
  const period = widths.reduce((sum, w) => sum + w, 0);
  let groups = Math.floor(columns / period) * widths.length;
  for (let rest = columns % period, i = 0; rest > 0; rest -= widths[i++]) groups++;
  const pairs = Math.ceil(groups / 2);
  const distinct = [...new Set(widths)].sort((a, b) => a - b);
  const bytes = (name: string, buffer: ByteBuffer, least: number) => {
    if (!(buffer.byteLength >= least))
      throw new RangeError(`trellis ${name} need ${least} bytes and have ${buffer.byteLength}`);
  };
  if (!Number.isInteger(steps / tileSteps))
    throw new RangeError(`trellis: ${steps} steps in tiles of ${tileSteps}`);
  // Exactly: the pairs tell where the next tile begins.
  const codes = pairs * LANES * (PREFIX + steps);
  if (weight.codes.byteLength !== codes)
    throw new RangeError(`trellis codes have ${weight.codes.byteLength} bytes, not ${codes}`);
  bytes("row numbers", weight.rowAt, 4 * LANES * steps);
  bytes("maps", weight.maps, distinct.length * 32);
  if (weight.positions.length !== rows || LANES * steps < rows)
    throw new RangeError(`trellis: ${steps} steps for ${rows} rows`);
  checkLength(
    "trellis tables",
    weight.tables,
    distinct.reduce((sum, w) => sum + 32 * w, 0),
  );
  checkLength("trellis scales", weight.scales, rows);
  return { groups, pairs, distinct };
}

export function checkTokenProducts(options: TokenProductsOptions): void {
  const { x, norm, up, rotation, products } = options;
  if (products.length === 0) throw new RangeError("token products: none");
  if (norm && up) throw new RangeError("token products: both a norm and an activation");
  const { columns } = products[0].weight;
  checkRotation({ ...rotation, x, y: x, rows: 1, columns });
  if (norm) checkLength("token products norm", norm.weight, columns);
  if (up) checkLength("token products up", up, columns);
  for (const { weight, bias, y, start = 0 } of products) {
    trellisShape(weight);
    if (weight.columns !== columns)
      throw new RangeError(`token products: ${weight.columns} and ${columns} columns`);
    if (bias) checkLength("token products bias", bias, weight.rows);
    checkRange("token products y", y.length, start, weight.rows);
  }
}
