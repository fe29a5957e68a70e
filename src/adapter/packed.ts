/**
 * The matrices of an adapter in 8 or 4 bits: whole numbers of -127 ... 127 or -7 ... 7 and a scale for each row.
 * docs/format.md, "Adapters".
 */
import { packBits, unpackBits } from "../codec/bits.js";
import { roundToF16 } from "../tensor/dtype.js";

export type PackedBits = 8 | 4;

export interface PackedMatrix {
  /** [rows, packedColumns]: a bit stream for each row, a number q as q + 2^(bits - 1). */
  readonly codes: Uint8Array;
  /** [rows], each a half-precision number. */
  readonly scales: Float32Array;
}

export function packedColumns(columns: number, bits: PackedBits): number {
  return Math.ceil((columns * bits) / 8);
}

/** Shares of a row's largest number that its range ends at; the one of the least squared error is taken. */
const RANGES = [1, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5];

export function packMatrix(values: Float32Array, columns: number, bits: PackedBits): PackedMatrix {
  const rows = values.length / columns;
  const stride = packedColumns(columns, bits);
  const codes = new Uint8Array(rows * stride);
  const scales = new Float32Array(rows);
  const limit = 2 ** (bits - 1) - 1;
  for (let row = 0; row < rows; row++) {
    const part = values.subarray(row * columns, (row + 1) * columns);
    const largest = part.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    let least = Number.POSITIVE_INFINITY;
    let best: number[] = [];
    for (const range of RANGES) {
      const scale = roundToF16((range * largest) / limit);
      let error = 0;
      const numbers = Array.from(part, (x) => {
        const q = scale === 0 ? 0 : Math.max(-limit, Math.min(limit, Math.round(x / scale)));
        error += (x - q * scale) ** 2;
        return q + limit + 1;
      });
      if (error >= least) continue;
      least = error;
      best = numbers;
      scales[row] = scale;
    }
    codes.set(packBits(best, bits), row * stride);
  }
  return { codes, scales };
}

export function unpackMatrix(
  { codes, scales }: PackedMatrix,
  columns: number,
  bits: PackedBits,
): Float32Array {
  const stride = packedColumns(columns, bits);
  const values = new Float32Array(scales.length * columns);
  for (const [row, scale] of scales.entries()) {
    const numbers = unpackBits(codes.subarray(row * stride, (row + 1) * stride), bits, columns);
    for (let c = 0; c < columns; c++) values[row * columns + c] = (numbers[c] - 2 ** (bits - 1)) * scale;
  }
  return values;
}
