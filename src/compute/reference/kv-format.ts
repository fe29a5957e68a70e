/** The definition of packed keys and values, a row at a time. */
import { f16ToNumber, numberToF16 } from "../../tensor/dtype.js";
import { type PackedFormat, packedRowBytes } from "../kv-format.js";

const LARGEST_F16 = 65504;

/** Packs `row` [headSize] as row `index` of `bytes`. */
export function packRow(row: Float32Array, format: PackedFormat, bytes: Uint8Array, index: number): void {
  const view = rowView(bytes, format, row.length, index);
  if (format === "f16") {
    for (const [i, x] of row.entries())
      view.setUint16(2 * i, numberToF16(Math.max(-LARGEST_F16, Math.min(LARGEST_F16, x))), true);
    return;
  }
  const scale = Math.fround(row.reduce((largest, x) => Math.max(largest, Math.abs(x)), 0) / 127);
  const inverse = scale > 0 ? Math.fround(1 / scale) : 0;
  view.setFloat32(0, scale, true);
  for (const [i, x] of row.entries()) {
    const value = roundToEven(Math.fround(x * inverse));
    view.setInt8(4 + i, Math.max(-127, Math.min(127, value)));
  }
}

/** Row `index` of `bytes`, [headSize]. */
export function unpackRow(
  bytes: Uint8Array,
  format: PackedFormat,
  headSize: number,
  index: number,
): Float32Array {
  const view = rowView(bytes, format, headSize, index);
  if (format === "f16")
    return Float32Array.from({ length: headSize }, (_, i) => f16ToNumber(view.getUint16(2 * i, true)));
  const scale = view.getFloat32(0, true);
  return Float32Array.from({ length: headSize }, (_, i) => scale * view.getInt8(4 + i));
}

function rowView(bytes: Uint8Array, format: PackedFormat, headSize: number, index: number): DataView {
  const size = packedRowBytes(format, headSize);
  return new DataView(bytes.buffer, bytes.byteOffset + index * size, size);
}

function roundToEven(x: number): number {
  const rounded = Math.round(x);
  return rounded - x === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
