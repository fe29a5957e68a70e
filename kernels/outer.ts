// Products of f32 matrices with the reduction across the rows of the right side: C += A B. Lanes run along
// the columns. Every element is summed in order of k whatever its tile.

import { f32Bytes, multiplyAdd } from "./vector";

/**
 * C [m, n] += A [m, k] B [k, n]; element (i, k) of A is at a + i * aRow + k * aColumn, so A may be stored
 * either way; bStride and cStride are bytes between rows. `wide`: 16 columns at a time, for an engine that makes one
 * instruction of two; the sums are the same.
 */
export function multiplyAccumulate(
  a: usize,
  aRow: usize,
  aColumn: usize,
  b: usize,
  bStride: usize,
  c: usize,
  cStride: usize,
  m: i32,
  n: i32,
  k: i32,
  wide: bool,
): void {
  let i = 0;
  for (; i <= m - 4; i += 4) {
    const ai = a + <usize>i * aRow;
    const ci = c + <usize>i * cStride;
    let j = 0;
    if (wide)
      for (; j <= n - 16; j += 16)
        tile4x16(ai, aRow, aColumn, b + f32Bytes(j), bStride, ci + f32Bytes(j), cStride, k);
    for (; j <= n - 8; j += 8)
      tile4x8(ai, aRow, aColumn, b + f32Bytes(j), bStride, ci + f32Bytes(j), cStride, k);
    for (let r: usize = 0; r < 4; r++) row(ai + r * aRow, aColumn, b, bStride, ci + r * cStride, j, n, k);
  }
  for (; i < m; i++) row(a + <usize>i * aRow, aColumn, b, bStride, c + <usize>i * cStride, 0, n, k);
}

function tile4x8(
  a: usize,
  aRow: usize,
  aColumn: usize,
  b: usize,
  bStride: usize,
  c: usize,
  cStride: usize,
  k: i32,
): void {
  let q1 = a + aRow,
    q2 = q1 + aRow,
    q3 = q2 + aRow;
  const zero = f32x4.splat(0);
  let a0 = zero,
    a1 = zero,
    a2 = zero,
    a3 = zero,
    b0 = zero,
    b1 = zero,
    b2 = zero,
    b3 = zero;
  for (; k > 0; k--) {
    const u = v128.load(b);
    const v = v128.load(b, 16);
    let s = v128.load32_splat(a);
    a0 = multiplyAdd(u, s, a0);
    b0 = multiplyAdd(v, s, b0);
    s = v128.load32_splat(q1);
    a1 = multiplyAdd(u, s, a1);
    b1 = multiplyAdd(v, s, b1);
    s = v128.load32_splat(q2);
    a2 = multiplyAdd(u, s, a2);
    b2 = multiplyAdd(v, s, b2);
    s = v128.load32_splat(q3);
    a3 = multiplyAdd(u, s, a3);
    b3 = multiplyAdd(v, s, b3);
    a += aColumn;
    q1 += aColumn;
    q2 += aColumn;
    q3 += aColumn;
    b += bStride;
  }
  add8(c, a0, b0);
  add8(c + cStride, a1, b1);
  add8(c + 2 * cStride, a2, b2);
  add8(c + 3 * cStride, a3, b3);
}

/** Eight sums of 256 bits where V8 joins neighbours: two of `tile4x8` do not hide the latency of four. */
function tile4x16(
  a: usize,
  aRow: usize,
  aColumn: usize,
  b: usize,
  bStride: usize,
  c: usize,
  cStride: usize,
  k: i32,
): void {
  let q1 = a + aRow,
    q2 = q1 + aRow,
    q3 = q2 + aRow;
  const zero = f32x4.splat(0);
  let a0 = zero,
    a1 = zero,
    a2 = zero,
    a3 = zero,
    b0 = zero,
    b1 = zero,
    b2 = zero,
    b3 = zero,
    c0 = zero,
    c1 = zero,
    c2 = zero,
    c3 = zero,
    d0 = zero,
    d1 = zero,
    d2 = zero,
    d3 = zero;
  for (; k > 0; k--) {
    const u = v128.load(b);
    const v = v128.load(b, 16);
    const w = v128.load(b, 32);
    const x = v128.load(b, 48);
    let s = v128.load32_splat(a);
    a0 = multiplyAdd(u, s, a0);
    b0 = multiplyAdd(v, s, b0);
    c0 = multiplyAdd(w, s, c0);
    d0 = multiplyAdd(x, s, d0);
    s = v128.load32_splat(q1);
    a1 = multiplyAdd(u, s, a1);
    b1 = multiplyAdd(v, s, b1);
    c1 = multiplyAdd(w, s, c1);
    d1 = multiplyAdd(x, s, d1);
    s = v128.load32_splat(q2);
    a2 = multiplyAdd(u, s, a2);
    b2 = multiplyAdd(v, s, b2);
    c2 = multiplyAdd(w, s, c2);
    d2 = multiplyAdd(x, s, d2);
    s = v128.load32_splat(q3);
    a3 = multiplyAdd(u, s, a3);
    b3 = multiplyAdd(v, s, b3);
    c3 = multiplyAdd(w, s, c3);
    d3 = multiplyAdd(x, s, d3);
    a += aColumn;
    q1 += aColumn;
    q2 += aColumn;
    q3 += aColumn;
    b += bStride;
  }
  add8(c, a0, b0);
  add8(c + 32, c0, d0);
  add8(c + cStride, a1, b1);
  add8(c + cStride + 32, c1, d1);
  add8(c + 2 * cStride, a2, b2);
  add8(c + 2 * cStride + 32, c2, d2);
  add8(c + 3 * cStride, a3, b3);
  add8(c + 3 * cStride + 32, c3, d3);
}

/** Two vectors side by side; with nothing between the stores, or V8 does not join them. */
// @ts-ignore: decorator
@inline
export function store8(c: usize, low: v128, high: v128): void {
  v128.store(c, low);
  v128.store(c, high, 16);
}

/** Adds two vectors to the eight numbers at c. */
// @ts-ignore: decorator
@inline
export function add8(c: usize, low: v128, high: v128): void {
  store8(c, f32x4.add(v128.load(c), low), f32x4.add(v128.load(c, 16), high));
}

/** Columns j .. n - 1 of one row. */
function row(a: usize, aColumn: usize, b: usize, bStride: usize, c: usize, j: i32, n: i32, k: i32): void {
  for (; j <= n - 32; j += 32) row32(a, aColumn, b + f32Bytes(j), bStride, c + f32Bytes(j), k);
  for (; j <= n - 8; j += 8) {
    let low = f32x4.splat(0);
    let high = low;
    let p = a;
    let q = b + f32Bytes(j);
    for (let i = k; i > 0; i--, p += aColumn, q += bStride) {
      const s = v128.load32_splat(p);
      low = multiplyAdd(v128.load(q), s, low);
      high = multiplyAdd(v128.load(q, 16), s, high);
    }
    add8(c + f32Bytes(j), low, high);
  }
  for (; j <= n - 4; j += 4) {
    let sum = f32x4.splat(0);
    let p = a;
    let q = b + f32Bytes(j);
    for (let i = k; i > 0; i--, p += aColumn, q += bStride)
      sum = multiplyAdd(v128.load(q), v128.load32_splat(p), sum);
    const to = c + f32Bytes(j);
    v128.store(to, f32x4.add(v128.load(to), sum));
  }
  for (; j < n; j++) {
    let sum: f32 = 0;
    let p = a;
    let q = b + f32Bytes(j);
    for (let i = k; i > 0; i--, p += aColumn, q += bStride) sum += load<f32>(q) * load<f32>(p);
    const to = c + f32Bytes(j);
    store<f32>(to, load<f32>(to) + sum);
  }
}

/** 32 columns of one row: eight sums at once hide the latency of each. */
function row32(a: usize, aColumn: usize, b: usize, bStride: usize, c: usize, k: i32): void {
  const zero = f32x4.splat(0);
  let s0 = zero,
    s1 = zero,
    s2 = zero,
    s3 = zero,
    s4 = zero,
    s5 = zero,
    s6 = zero,
    s7 = zero;
  for (; k > 0; k--) {
    const s = v128.load32_splat(a);
    s0 = multiplyAdd(v128.load(b), s, s0);
    s1 = multiplyAdd(v128.load(b, 16), s, s1);
    s2 = multiplyAdd(v128.load(b, 32), s, s2);
    s3 = multiplyAdd(v128.load(b, 48), s, s3);
    s4 = multiplyAdd(v128.load(b, 64), s, s4);
    s5 = multiplyAdd(v128.load(b, 80), s, s5);
    s6 = multiplyAdd(v128.load(b, 96), s, s6);
    s7 = multiplyAdd(v128.load(b, 112), s, s7);
    a += aColumn;
    b += bStride;
  }
  add8(c, s0, s1);
  add8(c + 32, s2, s3);
  add8(c + 64, s4, s5);
  add8(c + 96, s6, s7);
}
