// Products of f32 matrices that are both stored along the reduction: y = x wᵀ. Lanes run along it, so neither
// side is packed or transposed; four tokens by two outputs share each load. Every element of y is the same
// sum in the same order whatever the tile it falls in, so results do not depend on threads or batch.
//
// Measured on Zen 3 at 3.2 GHz (peak without fused multiply-add 52 GFLOP/s): see bench/gemm.mjs.

import { f32Bytes, multiplyAdd, sumLanes, sumLanes4, zero } from "./vector";

/** Elements of the reduction per pass: 4 rows of x (16 KiB) stay in L1. */
const BLOCK: i32 = 1024;
/** Bytes of w that stay in L2 while all tokens pass. */
const PANEL: i32 = 1 << 17;

/** y [tokens, outputs] (+)= x [tokens, inputs] wᵀ, w [outputs, inputs]; the strides are bytes between rows. */
export function multiplyTransposed(
  x: usize,
  xStride: usize,
  w: usize,
  wStride: usize,
  y: usize,
  yStride: usize,
  tokens: i32,
  inputs: i32,
  outputs: i32,
  accumulate: bool,
): void {
  if (!accumulate) {
    for (let t = 0; t < tokens; t++) zero(y + <usize>t * yStride, outputs);
  }
  if (inputs == 0) return;
  const passes = (inputs + BLOCK - 1) / BLOCK;
  const block = ((inputs + passes - 1) / passes + 3) & ~3;
  const panel = max(8, (PANEL / (block << 2)) & ~1);
  for (let k = 0; k < inputs; k += block) {
    const length = min(block, inputs - k);
    const xk = x + f32Bytes(k);
    const wk = w + f32Bytes(k);
    for (let n = 0; n < outputs; n += panel) {
      const end = min(outputs, n + panel);
      let t = 0;
      for (; t <= tokens - 4; t += 4) {
        const xt = xk + <usize>t * xStride;
        const yt = y + <usize>t * yStride;
        let o = n;
        for (; o <= end - 2; o += 2)
          tile4x2(xt, xStride, wk + <usize>o * wStride, wStride, yt + f32Bytes(o), yStride, length);
        if (o < end) tile4x1(xt, xStride, wk + <usize>o * wStride, yt + f32Bytes(o), yStride, length);
      }
      for (; t < tokens; t++) {
        const xt = xk + <usize>t * xStride;
        const yt = y + <usize>t * yStride;
        let o = n;
        for (; o <= end - 4; o += 4) tile1x4(xt, wk + <usize>o * wStride, wStride, yt + f32Bytes(o), length);
        for (; o < end; o++) tile1x1(xt, wk + <usize>o * wStride, yt + f32Bytes(o), length);
      }
    }
  }
}

function tile4x2(x: usize, xs: usize, w: usize, ws: usize, y: usize, ys: usize, length: i32): void {
  let x1 = x + xs,
    x2 = x1 + xs,
    x3 = x2 + xs,
    w1 = w + ws;
  const zero = f32x4.splat(0);
  let a0 = zero,
    a1 = zero,
    a2 = zero,
    a3 = zero,
    b0 = zero,
    b1 = zero,
    b2 = zero,
    b3 = zero;
  // Not unrolled: two steps at once need more than the 15 registers that V8 has (31 -> 21 GFLOP/s).
  const fours = x + f32Bytes(length & ~3);
  while (x < fours) {
    const u = v128.load(w);
    const v = v128.load(w1);
    let s = v128.load(x);
    a0 = multiplyAdd(u, s, a0);
    b0 = multiplyAdd(v, s, b0);
    s = v128.load(x1);
    a1 = multiplyAdd(u, s, a1);
    b1 = multiplyAdd(v, s, b1);
    s = v128.load(x2);
    a2 = multiplyAdd(u, s, a2);
    b2 = multiplyAdd(v, s, b2);
    s = v128.load(x3);
    a3 = multiplyAdd(u, s, a3);
    b3 = multiplyAdd(v, s, b3);
    x += 16;
    x1 += 16;
    x2 += 16;
    x3 += 16;
    w += 16;
    w1 += 16;
  }
  for (let i = length & 3; i > 0; i--) {
    const u = v128.load32_zero(w);
    const v = v128.load32_zero(w1);
    let s = v128.load32_zero(x);
    a0 = multiplyAdd(u, s, a0);
    b0 = multiplyAdd(v, s, b0);
    s = v128.load32_zero(x1);
    a1 = multiplyAdd(u, s, a1);
    b1 = multiplyAdd(v, s, b1);
    s = v128.load32_zero(x2);
    a2 = multiplyAdd(u, s, a2);
    b2 = multiplyAdd(v, s, b2);
    s = v128.load32_zero(x3);
    a3 = multiplyAdd(u, s, a3);
    b3 = multiplyAdd(v, s, b3);
    x += 4;
    x1 += 4;
    x2 += 4;
    x3 += 4;
    w += 4;
    w1 += 4;
  }
  addPairs(y, ys, sumLanes4(a0, b0, a1, b1));
  addPairs(y + 2 * ys, ys, sumLanes4(a2, b2, a3, b3));
}

/** Adds lanes 0, 1 to two elements at y and lanes 2, 3 to two in the row after it. */
// @ts-ignore: decorator
@inline
function addPairs(y: usize, stride: usize, sums: v128): void {
  const old = v128.load64_lane(y + stride, v128.load64_zero(y), 1);
  const sum = f32x4.add(old, sums);
  v128.store64_lane(y, sum, 0);
  v128.store64_lane(y + stride, sum, 1);
}

function tile4x1(x: usize, xs: usize, w: usize, y: usize, ys: usize, length: i32): void {
  for (let t: usize = 0; t < 4; t++) tile1x1(x + t * xs, w, y + t * ys, length);
}

function tile1x4(x: usize, w: usize, ws: usize, y: usize, length: i32): void {
  let w1 = w + ws,
    w2 = w1 + ws,
    w3 = w2 + ws;
  const zero = f32x4.splat(0);
  let a0 = zero,
    a1 = zero,
    a2 = zero,
    a3 = zero;
  const fours = x + f32Bytes(length & ~3);
  while (x < fours) {
    const s = v128.load(x);
    a0 = multiplyAdd(v128.load(w), s, a0);
    a1 = multiplyAdd(v128.load(w1), s, a1);
    a2 = multiplyAdd(v128.load(w2), s, a2);
    a3 = multiplyAdd(v128.load(w3), s, a3);
    x += 16;
    w += 16;
    w1 += 16;
    w2 += 16;
    w3 += 16;
  }
  for (let i = length & 3; i > 0; i--) {
    const s = v128.load32_zero(x);
    a0 = multiplyAdd(v128.load32_zero(w), s, a0);
    a1 = multiplyAdd(v128.load32_zero(w1), s, a1);
    a2 = multiplyAdd(v128.load32_zero(w2), s, a2);
    a3 = multiplyAdd(v128.load32_zero(w3), s, a3);
    x += 4;
    w += 4;
    w1 += 4;
    w2 += 4;
    w3 += 4;
  }
  v128.store(y, f32x4.add(v128.load(y), sumLanes4(a0, a1, a2, a3)));
}

function tile1x1(x: usize, w: usize, y: usize, length: i32): void {
  let a = f32x4.splat(0);
  const fours = x + f32Bytes(length & ~3);
  for (; x < fours; x += 16, w += 16) a = multiplyAdd(v128.load(w), v128.load(x), a);
  for (let i = length & 3; i > 0; i--, x += 4, w += 4)
    a = multiplyAdd(v128.load32_zero(w), v128.load32_zero(x), a);
  store<f32>(y, load<f32>(y) + sumLanes(a));
}
