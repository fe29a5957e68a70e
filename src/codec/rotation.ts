/**
 * The rotation that makes weight matrices Gaussian-like before coding: incoherence processing as in QuIP#
 * (arXiv 2402.04396, section 3) and QTIP, on the input side only. Row vectors x of n = m * 2^k elements (m
 * odd) become y = x diag(signs) (Q ⊗ H)ᵀ: random signs, a 2^k Walsh-Hadamard transform inside each of the m
 * blocks, an m x m Hartley transform across them. All of it follows from (n, seed), so nothing is stored.
 *
 * Plain TypeScript for checks and decoding to dense weights; models run `Backend.rotate`.
 */
import { InputError } from "../errors.js";

/** Q costs m multiplications an element and m² numbers; the odd parts of real models are 1 to 107. */
export const MAX_ODD_PART = 1024;

export interface Rotation {
  readonly columns: number;
  readonly seed: number;
  /** Order of Q: the odd part of `columns`. H has order columns / m. */
  readonly m: number;
  /** [columns] of ±1 */
  readonly signs: Float32Array;
  /** [m, m], orthogonal and symmetric: cas(2πij / m) / √m, with cas = cos + sin. */
  readonly q: Float32Array;
}

/**
 * Sign i is negative where the top bit of this 32-bit hash is set (all arithmetic modulo 2^32):
 *   h = seed ^ ((i + 1) * 0x9E3779B9)
 *   h ^= h >> 16;  h *= 0x85EBCA6B;  h ^= h >> 13;  h *= 0xC2B2AE35;  h ^= h >> 16
 */
function signHash(seed: number, i: number): number {
  let h = seed ^ Math.imul(i + 1, 0x9e3779b9);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** The largest odd divisor of a positive integer. */
export function oddPart(n: number): number {
  let m = n;
  while (m > 1 && m % 2 === 0) m /= 2;
  return m;
}

/** `seed` is an unsigned 32-bit integer. Throws InputError if the odd part of `columns` is too large. */
export function createRotation(columns: number, seed: number): Rotation {
  const m = oddPart(columns);
  if (m > MAX_ODD_PART)
    throw new InputError(
      `cannot rotate ${columns} columns: their odd part ${m} is above ${MAX_ODD_PART}; keep this matrix uncoded`,
    );
  const signs = new Float32Array(columns);
  for (let i = 0; i < columns; i++) signs[i] = signHash(seed, i) >>> 31 ? -1 : 1;
  const q = new Float32Array(m * m);
  for (let i = 0; i < m; i++) {
    for (let j = 0; j < m; j++) {
      const angle = (2 * Math.PI * ((i * j) % m)) / m;
      q[i * m + j] = (Math.cos(angle) + Math.sin(angle)) / Math.sqrt(m);
    }
  }
  return { columns, seed, m, signs, q };
}

/** Rotates row vectors [rows, columns] in place. */
export function rotateRows(rotation: Rotation, x: Float32Array, rows: number): void {
  const { columns, signs } = rotation;
  for (let r = 0; r < rows; r++) {
    const row = x.subarray(r * columns, (r + 1) * columns);
    for (let i = 0; i < columns; i++) row[i] *= signs[i];
    mix(rotation, row);
  }
}

/** Undoes rotateRows: Q and H are their own inverses. */
export function unrotateRows(rotation: Rotation, x: Float32Array, rows: number): void {
  const { columns, signs } = rotation;
  for (let r = 0; r < rows; r++) {
    const row = x.subarray(r * columns, (r + 1) * columns);
    mix(rotation, row);
    for (let i = 0; i < columns; i++) row[i] *= signs[i];
  }
}

/** row = (Q ⊗ H) row. */
function mix({ columns, m, q }: Rotation, row: Float32Array): void {
  const order = columns / m;
  for (let half = 1; half < order; half *= 2) {
    for (let start = 0; start < columns; start += 2 * half) {
      for (let i = start; i < start + half; i++) {
        const a = row[i];
        const b = row[i + half];
        row[i] = a + b;
        row[i + half] = a - b;
      }
    }
  }
  const scale = 1 / Math.sqrt(order);
  const column = new Float64Array(m);
  for (let k = 0; k < order; k++) {
    for (let j = 0; j < m; j++) column[j] = row[j * order + k] * scale;
    for (let i = 0; i < m; i++) {
      let sum = 0;
      for (let j = 0; j < m; j++) sum += q[i * m + j] * column[j];
      row[i * order + k] = sum;
    }
  }
}
