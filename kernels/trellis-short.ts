// Products of many tokens with trellis-coded rows in whole numbers of 16 bits: an instruction multiplies eight pairs
// and adds them by twos, where one of f32 has four. Both sides are rounded, weights to WEIGHT_LARGEST of a matrix's
// largest, activations of each token to what keeps every sum below 2^31; the relative error is below 0.001.

import { take } from "./counter";
import { store8 } from "./outer";
import { trellisDecode } from "./trellis";
import { scatter } from "./trellis-rows";
import { f32Bytes, maxLanes, sumLanes } from "./vector";

// @ts-ignore: decorator
@inline
function i16Bytes(count: i32): usize {
  return (<usize>count) << 1;
}

/** The 256 groups of one width as whole numbers, times `factor`; see `trellisExpand`. */
export function trellisExpandShort(tables: usize, width: i32, factor: f32, out: usize): void {
  const row = f32Bytes(width);
  for (let u: usize = 0; u < 256; u++) {
    const a = tables + (u & 15) * row;
    const b = tables + (16 + (u >> 4)) * row;
    for (let v: usize = 0; v < row; v += 4, out += 2)
      store<i16>(out, rounded((load<f32>(a + v) + load<f32>(b + v)) * factor));
  }
}

/** From here on floats are a whole number apart: what is added to it is rounded, to even where it is half way. */
const WHOLE: f32 = 12582912;

/** The nearest whole numbers of numbers below 2^22; anything for others. */
// @ts-ignore: decorator
@inline
function rounded4(x: v128): v128 {
  const whole = f32x4.splat(WHOLE);
  return i32x4.sub(f32x4.add(x, whole), whole);
}

// @ts-ignore: decorator
@inline
function rounded(x: f32): i16 {
  return <i16>(reinterpret<i32>(x + WHOLE) - reinterpret<i32>(WHOLE));
}

/**
 * Rows first .. end - 1 of x [?, columns] as whole numbers, `stride` bytes apart at `out` and padded with zeros. A row
 * is multiplied by what makes its length `longest` and its largest number at most 32767; 1 over that, times `unit`,
 * goes to `units`, or NaN for a row that is not finite.
 */
export function shortRows(
  x: usize,
  columns: i32,
  longest: f32,
  unit: f32,
  out: usize,
  stride: usize,
  units: usize,
  first: i32,
  end: i32,
): void {
  for (let r = first; r < end; r++) {
    const from = x + <usize>r * f32Bytes(columns);
    const to = out + <usize>r * stride;
    const last = from + f32Bytes(columns);
    let largest4 = f32x4.splat(0);
    let squares4 = largest4;
    let p = from;
    for (; p <= last - 16; p += 16) {
      const v = v128.load(p);
      // Not max, which takes 7 instructions for its rules about NaN: the squares tell.
      largest4 = f32x4.pmax(largest4, f32x4.abs(v));
      squares4 = f32x4.add(squares4, f32x4.mul(v, v));
    }
    let largest = maxLanes(largest4);
    let squares = sumLanes(squares4);
    for (; p < last; p += 4) {
      const v = load<f32>(p);
      largest = max(largest, abs(v));
      squares += v * v;
    }
    const factor = squares == 0 ? <f32>0 : min(longest / sqrt(squares), <f32>32767 / largest);
    store<f32>(units + f32Bytes(r), factor == 0 ? squares - squares : unit / factor);
    let q = to;
    const factor4 = f32x4.splat(factor);
    for (p = from; p <= last - 16; p += 16, q += 8) {
      const v = rounded4(f32x4.mul(v128.load(p), factor4));
      v128.store64_lane(q, i16x8.narrow_i32x4_s(v, v), 0);
    }
    for (; p < last; p += 4, q += 2) store<i16>(q, rounded(load<f32>(p) * factor));
    for (; q < to + stride; q += 2) store<i16>(q, 0);
  }
}

/**
 * `trellisMatmul` of all rows, of inputs as `shortRows` makes them, `xStride` bytes apart, `block` columns (of 8) to a
 * sum. Threads take a tile at a time from `counter`, 0 at first. `wide`: 16 columns at a time, for an engine that makes
 * one instruction of two; sums of whole numbers are the same.
 */
export function trellisMatmulShort(
  codes: usize,
  steps: i32,
  tileSteps: i32,
  pairs: i32,
  columns: i32,
  plan: usize,
  patternLength: i32,
  rowAt: usize,
  scales: usize,
  rows: i32,
  x: usize,
  xStride: usize,
  units: usize,
  block: i32,
  wide: bool,
  y: usize,
  tokens: i32,
  tile: usize,
  tileRows: i32,
  tileStride: usize,
  products: usize,
  scratch: usize,
  counter: usize,
): void {
  const stride = f32Bytes(tileRows);
  const end = steps << 4;
  for (let p = take(counter) * tileRows; p < end; p = take(counter) * tileRows) {
    const count = min(tileRows, end - p);
    trellisDecode(
      codes,
      tileSteps,
      pairs,
      columns,
      plan,
      patternLength,
      p,
      count,
      tile,
      tileStride,
      scratch,
      2,
    );
    for (let k = 0; k < columns; k += block) {
      const octets = (min(block, columns - k) + 7) >> 3;
      const xk = x + i16Bytes(k);
      const wk = tile + i16Bytes(k);
      // What decoding worked in is free by then.
      const sums = wide ? scratch : 0;
      multiplyShort(xk, xStride, units, wk, tileStride, products, stride, tokens, octets, count, k > 0, sums);
    }
    for (let t = 0; t < tokens; t++)
      scatter(
        products + <usize>t * stride,
        rowAt + f32Bytes(p),
        scales,
        y + <usize>t * f32Bytes(rows),
        count,
      );
  }
}

/**
 * y [tokens, outputs] (+)= units x wᵀ, `octets` times eight columns; outputs even. `sums`: 256 bytes to do it 16 columns
 * at a time, what is beyond the last octet being zero in x; or 0.
 */
export function multiplyShort(
  x: usize,
  xStride: usize,
  units: usize,
  w: usize,
  wStride: usize,
  y: usize,
  yStride: usize,
  tokens: i32,
  octets: i32,
  outputs: i32,
  accumulate: bool,
  sums: usize,
): void {
  let t = 0;
  for (; t <= tokens - 4; t += 4) {
    const xt = x + <usize>t * xStride;
    const yt = y + <usize>t * yStride;
    for (let o = 0; o < outputs; o += 2) {
      const wo = w + <usize>o * wStride;
      const yo = yt + f32Bytes(o);
      if (sums) wideTile4x2(xt, xStride, units, wo, wStride, yo, yStride, (octets + 1) >> 1, accumulate, sums);
      else tile4x2(xt, xStride, units, wo, wStride, yo, yStride, octets, accumulate);
    }
    units += 16;
  }
  for (; t < tokens; t++, units += 4) {
    const xt = x + <usize>t * xStride;
    const yt = y + <usize>t * yStride;
    for (let o = 0; o < outputs; o += 2)
      tile1x2(xt, units, w + <usize>o * wStride, wStride, yt + f32Bytes(o), octets, accumulate);
  }
}

function tile4x2(
  x: usize,
  xs: usize,
  units: usize,
  w: usize,
  ws: usize,
  y: usize,
  ys: usize,
  octets: i32,
  accumulate: bool,
): void {
  let x1 = x + xs,
    x2 = x1 + xs,
    x3 = x2 + xs,
    w1 = w + ws;
  const zero = i32x4.splat(0);
  let a0 = zero,
    a1 = zero,
    a2 = zero,
    a3 = zero,
    b0 = zero,
    b1 = zero,
    b2 = zero,
    b3 = zero;
  const end = x + ((<usize>octets) << 4);
  let u: v128, v: v128, s: v128;
  do {
    // Two octets a turn spare increments. The way out between them keeps V8 from bringing the loads of both forward, for
    // which there are not enough registers: 330 -> 367 tokens/s of a prompt (Zen 5, one thread; four: no more).
    u = v128.load(w);
    v = v128.load(w1);
    s = v128.load(x);
    a0 = i32x4.add(a0, i32x4.dot_i16x8_s(u, s));
    b0 = i32x4.add(b0, i32x4.dot_i16x8_s(v, s));
    s = v128.load(x1);
    a1 = i32x4.add(a1, i32x4.dot_i16x8_s(u, s));
    b1 = i32x4.add(b1, i32x4.dot_i16x8_s(v, s));
    s = v128.load(x2);
    a2 = i32x4.add(a2, i32x4.dot_i16x8_s(u, s));
    b2 = i32x4.add(b2, i32x4.dot_i16x8_s(v, s));
    s = v128.load(x3);
    a3 = i32x4.add(a3, i32x4.dot_i16x8_s(u, s));
    b3 = i32x4.add(b3, i32x4.dot_i16x8_s(v, s));
    if (x + 16 == end) break;
    u = v128.load(w, 16);
    v = v128.load(w1, 16);
    s = v128.load(x, 16);
    a0 = i32x4.add(a0, i32x4.dot_i16x8_s(u, s));
    b0 = i32x4.add(b0, i32x4.dot_i16x8_s(v, s));
    s = v128.load(x1, 16);
    a1 = i32x4.add(a1, i32x4.dot_i16x8_s(u, s));
    b1 = i32x4.add(b1, i32x4.dot_i16x8_s(v, s));
    s = v128.load(x2, 16);
    a2 = i32x4.add(a2, i32x4.dot_i16x8_s(u, s));
    b2 = i32x4.add(b2, i32x4.dot_i16x8_s(v, s));
    s = v128.load(x3, 16);
    a3 = i32x4.add(a3, i32x4.dot_i16x8_s(u, s));
    b3 = i32x4.add(b3, i32x4.dot_i16x8_s(v, s));
    x += 32;
    x1 += 32;
    x2 += 32;
    x3 += 32;
    w += 32;
    w1 += 32;
  } while (x != end);
  put4x2(units, y, ys, sums4(a0, b0, a1, b1), sums4(a2, b2, a3, b3), accumulate);
}

/** Sums of two outputs each for tokens 0, 1 and for 2, 3, times the tokens' units. */
// @ts-ignore: decorator
@inline
function put4x2(units: usize, y: usize, ys: usize, first: v128, second: v128, accumulate: bool): void {
  const unit4 = v128.load(units);
  putPairs(y, ys, f32x4.mul(first, v128.shuffle<f32>(unit4, unit4, 0, 0, 1, 1)), accumulate);
  putPairs(y + 2 * ys, ys, f32x4.mul(second, v128.shuffle<f32>(unit4, unit4, 2, 2, 3, 3)), accumulate);
}

/**
 * `tile4x2` of 16 columns at a time: neighbours in memory are summed in neighbouring vectors, and stored side by side
 * at the end, which is what V8 joins (kernels/gram.ts).
 */
function wideTile4x2(
  x: usize,
  xs: usize,
  units: usize,
  w: usize,
  ws: usize,
  y: usize,
  ys: usize,
  pairs: i32,
  accumulate: bool,
  sums: usize,
): void {
  let x1 = x + xs,
    x2 = x1 + xs,
    x3 = x2 + xs,
    w1 = w + ws;
  const zero = i32x4.splat(0);
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
  for (; pairs > 0; pairs--) {
    const u = v128.load(w);
    const v = v128.load(w, 16);
    const u1 = v128.load(w1);
    const v1 = v128.load(w1, 16);
    let s = v128.load(x);
    let t = v128.load(x, 16);
    a0 = i32x4.add(a0, i32x4.dot_i16x8_s(u, s));
    b0 = i32x4.add(b0, i32x4.dot_i16x8_s(v, t));
    c0 = i32x4.add(c0, i32x4.dot_i16x8_s(u1, s));
    d0 = i32x4.add(d0, i32x4.dot_i16x8_s(v1, t));
    s = v128.load(x1);
    t = v128.load(x1, 16);
    a1 = i32x4.add(a1, i32x4.dot_i16x8_s(u, s));
    b1 = i32x4.add(b1, i32x4.dot_i16x8_s(v, t));
    c1 = i32x4.add(c1, i32x4.dot_i16x8_s(u1, s));
    d1 = i32x4.add(d1, i32x4.dot_i16x8_s(v1, t));
    s = v128.load(x2);
    t = v128.load(x2, 16);
    a2 = i32x4.add(a2, i32x4.dot_i16x8_s(u, s));
    b2 = i32x4.add(b2, i32x4.dot_i16x8_s(v, t));
    c2 = i32x4.add(c2, i32x4.dot_i16x8_s(u1, s));
    d2 = i32x4.add(d2, i32x4.dot_i16x8_s(v1, t));
    s = v128.load(x3);
    t = v128.load(x3, 16);
    a3 = i32x4.add(a3, i32x4.dot_i16x8_s(u, s));
    b3 = i32x4.add(b3, i32x4.dot_i16x8_s(v, t));
    c3 = i32x4.add(c3, i32x4.dot_i16x8_s(u1, s));
    d3 = i32x4.add(d3, i32x4.dot_i16x8_s(v1, t));
    x += 32;
    x1 += 32;
    x2 += 32;
    x3 += 32;
    w += 32;
    w1 += 32;
  }
  store8(sums, a0, b0);
  store8(sums + 32, c0, d0);
  store8(sums + 64, a1, b1);
  store8(sums + 96, c1, d1);
  store8(sums + 128, a2, b2);
  store8(sums + 160, c2, d2);
  store8(sums + 192, a3, b3);
  store8(sums + 224, c3, d3);
  const first = sums4(halves(sums), halves(sums + 32), halves(sums + 64), halves(sums + 96));
  const second = sums4(halves(sums + 128), halves(sums + 160), halves(sums + 192), halves(sums + 224));
  put4x2(units, y, ys, first, second, accumulate);
}

// @ts-ignore: decorator
@inline
function halves(p: usize): v128 {
  return i32x4.add(v128.load(p), v128.load(p, 16));
}

function tile1x2(
  x: usize,
  units: usize,
  w: usize,
  ws: usize,
  y: usize,
  octets: i32,
  accumulate: bool,
): void {
  let a = i32x4.splat(0);
  let b = a;
  for (const end = x + ((<usize>octets) << 4); x < end; x += 16, w += 16) {
    const s = v128.load(x);
    a = i32x4.add(a, i32x4.dot_i16x8_s(v128.load(w), s));
    b = i32x4.add(b, i32x4.dot_i16x8_s(v128.load(w + ws), s));
  }
  let sums = f32x4.mul(sums4(a, b, a, b), v128.load32_splat(units));
  if (accumulate) sums = f32x4.add(sums, v128.load64_zero(y));
  v128.store64_lane(y, sums, 0);
}

/** The sums of the four lanes of each, as f32. */
// @ts-ignore: decorator
@inline
function sums4(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = i32x4.add(v128.shuffle<i32>(a, b, 0, 4, 1, 5), v128.shuffle<i32>(a, b, 2, 6, 3, 7));
  const cd = i32x4.add(v128.shuffle<i32>(c, d, 0, 4, 1, 5), v128.shuffle<i32>(c, d, 2, 6, 3, 7));
  return f32x4.convert_i32x4_s(
    i32x4.add(v128.shuffle<i32>(ab, cd, 0, 1, 4, 5), v128.shuffle<i32>(ab, cd, 2, 3, 6, 7)),
  );
}

/** Lanes 0, 1 to two elements at y and lanes 2, 3 to two in the row after it, or added to them. */
// @ts-ignore: decorator
@inline
function putPairs(y: usize, stride: usize, sums: v128, accumulate: bool): void {
  if (accumulate) sums = f32x4.add(sums, v128.load64_lane(y + stride, v128.load64_zero(y), 1));
  v128.store64_lane(y, sums, 0);
  v128.store64_lane(y + stride, sums, 1);
}
