/**
 * How keys and values of a KV cache are stored in fewer bits than f32. A row is one head of one token,
 * [headSize] numbers in packedRowBytes bytes; a cache is [kvHeads, capacity] rows, so that a head's past, which a query
 * goes through from one end to the other, lies together (docs/performance.md, "Long contexts").
 * - "f16": IEEE half precision, to nearest even; what is too large becomes ±65504.
 * - "int8": a scale s (f32, the row's largest magnitude / 127), then round(x / s) as signed bytes.
 * Numbers are finite.
 */
export type PackedFormat = "f16" | "int8";

/** Positions that a cache of so many bytes has room for. */
export function packedCapacity(
  byteLength: number,
  format: PackedFormat,
  kvHeads: number,
  headSize: number,
): number {
  return Math.floor(byteLength / (kvHeads * packedRowBytes(format, headSize)));
}

/** Bytes of a row, a multiple of 4. */
export function packedRowBytes(format: PackedFormat, headSize: number): number {
  return format === "f16" ? 4 * Math.ceil(headSize / 2) : 4 + 4 * Math.ceil(headSize / 4);
}
