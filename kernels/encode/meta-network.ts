// Forward and backward passes of the meta codec's MLP blocks, and the element-wise steps between them.
//
// Activations come in blocks of 16 sub-vectors ("lanes"), [block][feature][16], f32. One MLP block computes,
// for a sub-vector h with its group's mean m and inverse deviation r,
//   x = (h - m) r,  u = x * gamma + beta,  out = W2 gelu(W1 u + b1) + b2 (+ h in a residual block).
// Its parameters lie as gamma [d], beta [d], W1 [hidden][d], b1 [hidden], W2 [d][hidden], b2 [d]. Without the
// normalisation the caller passes m = 0, r = 1, gamma = 1, beta = 0. The group statistics and their
// gradients are sums over whole groups: kernels leave one partial sum a lane, the caller adds them up.
//
// Every kernel works on blocks first .. end - 1 and needs `scratch` of its own on each thread.

import { gelu, geluWithSlope } from "./meta-gelu";

const BLOCK_BYTES: usize = 64;

// @ts-ignore: decorator
@inline
function splat(pointer: usize, index: i32): v128 {
  return v128.load32_splat(pointer + ((<usize>index) << 2));
}

/** Address of feature `i` of a [feature][16] block. */
// @ts-ignore: decorator
@inline
function feature(block: usize, i: i32): usize {
  return block + ((<usize>i) << 6);
}

/** y [outputs][16] = W [outputs][inputs] x [inputs][16] + b. */
function affine(w: usize, b: usize, x: usize, y: usize, inputs: i32, outputs: i32): void {
  for (let o = 0; o < outputs; o++) {
    let y0 = splat(b, o);
    let y1 = y0;
    let y2 = y0;
    let y3 = y0;
    let xi = x;
    for (let i = 0; i < inputs; i++) {
      const s = v128.load32_splat(w);
      y0 = f32x4.add(y0, f32x4.mul(s, v128.load(xi)));
      y1 = f32x4.add(y1, f32x4.mul(s, v128.load(xi, 16)));
      y2 = f32x4.add(y2, f32x4.mul(s, v128.load(xi, 32)));
      y3 = f32x4.add(y3, f32x4.mul(s, v128.load(xi, 48)));
      w += 4;
      xi += 64;
    }
    v128.store(y, y0);
    v128.store(y, y1, 16);
    v128.store(y, y2, 32);
    v128.store(y, y3, 48);
    y += 64;
  }
}

/** y [inputs][16] = W^T x for W [outputs][inputs], x [outputs][16]. */
function affineTransposed(w: usize, x: usize, y: usize, inputs: i32, outputs: i32): void {
  const stride = (<usize>inputs) << 2;
  for (let i = 0; i < inputs; i++) {
    let y0 = f32x4.splat(0);
    let y1 = y0;
    let y2 = y0;
    let y3 = y0;
    let wi = w + ((<usize>i) << 2);
    let xo = x;
    for (let o = 0; o < outputs; o++) {
      const s = v128.load32_splat(wi);
      y0 = f32x4.add(y0, f32x4.mul(s, v128.load(xo)));
      y1 = f32x4.add(y1, f32x4.mul(s, v128.load(xo, 16)));
      y2 = f32x4.add(y2, f32x4.mul(s, v128.load(xo, 32)));
      y3 = f32x4.add(y3, f32x4.mul(s, v128.load(xo, 48)));
      wi += stride;
      xo += 64;
    }
    v128.store(y, y0);
    v128.store(y, y1, 16);
    v128.store(y, y2, 32);
    v128.store(y, y3, 48);
    y += 64;
  }
}

/** Adds dy x^T to the 4-lane sums of W [outputs][inputs] and dy to those of b [outputs]. */
function addOuter(dy: usize, x: usize, w: usize, b: usize, inputs: i32, outputs: i32): void {
  for (let o = 0; o < outputs; o++) {
    const d0 = v128.load(dy);
    const d1 = v128.load(dy, 16);
    const d2 = v128.load(dy, 32);
    const d3 = v128.load(dy, 48);
    v128.store(b, f32x4.add(v128.load(b), f32x4.add(f32x4.add(d0, d1), f32x4.add(d2, d3))));
    let xi = x;
    for (let i = 0; i < inputs; i++) {
      const s01 = f32x4.add(f32x4.mul(d0, v128.load(xi)), f32x4.mul(d1, v128.load(xi, 16)));
      const s23 = f32x4.add(f32x4.mul(d2, v128.load(xi, 32)), f32x4.mul(d3, v128.load(xi, 48)));
      v128.store(w, f32x4.add(v128.load(w), f32x4.add(s01, s23)));
      w += 16;
      xi += 64;
    }
    dy += 64;
    b += 16;
  }
}

/** x = (h - m) r and u = x gamma + beta for one block. */
function normalise(h: usize, m: usize, r: usize, gamma: usize, beta: usize, x: usize, u: usize, d: i32): void {
  for (let lane: usize = 0; lane < 64; lane += 16) {
    const mean = v128.load(m + lane);
    const inverse = v128.load(r + lane);
    for (let i = 0; i < d; i++) {
      const normal = f32x4.mul(f32x4.sub(v128.load(feature(h, i) + lane), mean), inverse);
      v128.store(feature(x, i) + lane, normal);
      v128.store(feature(u, i) + lane, f32x4.add(f32x4.mul(normal, splat(gamma, i)), splat(beta, i)));
    }
  }
}

/** sum and sumOfSquares [16] of the features of one block, lane by lane. */
function moments(h: usize, d: i32, sum: usize, sumOfSquares: usize): void {
  for (let lane: usize = 0; lane < 64; lane += 16) {
    let s = f32x4.splat(0);
    let ss = f32x4.splat(0);
    for (let i = 0; i < d; i++) {
      const v = v128.load(feature(h, i) + lane);
      s = f32x4.add(s, v);
      ss = f32x4.add(ss, f32x4.mul(v, v));
    }
    v128.store(sum + lane, s);
    v128.store(sumOfSquares + lane, ss);
  }
}

/**
 * out[block] = rows `indices` of table [*][d], and their moments: sub-vectors of the matrix, or codebook
 * entries by code.
 */
export function metaGather(
  table: usize,
  d: i32,
  indices: usize,
  out: usize,
  sum: usize,
  sumOfSquares: usize,
  first: i32,
  end: i32,
): void {
  for (let block = <usize>first; block < <usize>end; block++) {
    const o = out + block * <usize>d * BLOCK_BYTES;
    for (let lane: usize = 0; lane < 64; lane += 4) {
      const row = table + ((<usize>load<u32>(indices + block * BLOCK_BYTES + lane) * <usize>d) << 2);
      for (let i = 0; i < d; i++) store<f32>(feature(o, i) + lane, load<f32>(row + ((<usize>i) << 2)));
    }
    moments(o, d, sum + block * BLOCK_BYTES, sumOfSquares + block * BLOCK_BYTES);
  }
}

/** One MLP block forward; `sum` and `sumOfSquares` are the moments of `out`. scratch: (2 d + hidden) x 64 bytes. */
export function metaForward(
  parameters: usize,
  d: i32,
  hidden: i32,
  residual: i32,
  h: usize,
  mean: usize,
  inverse: usize,
  out: usize,
  sum: usize,
  sumOfSquares: usize,
  scratch: usize,
  first: i32,
  end: i32,
): void {
  const beta = parameters + ((<usize>d) << 2);
  const w1 = beta + ((<usize>d) << 2);
  const b1 = w1 + ((<usize>(d * hidden)) << 2);
  const w2 = b1 + ((<usize>hidden) << 2);
  const b2 = w2 + ((<usize>(d * hidden)) << 2);
  const u = feature(scratch, d);
  const a = feature(u, d);
  for (let block = <usize>first; block < <usize>end; block++) {
    const hb = h + block * <usize>d * BLOCK_BYTES;
    const o = out + block * <usize>d * BLOCK_BYTES;
    const lanes = block * BLOCK_BYTES;
    normalise(hb, mean + lanes, inverse + lanes, parameters, beta, scratch, u, d);
    affine(w1, b1, u, a, d, hidden);
    gelu(a, hidden << 2);
    affine(w2, b2, a, o, hidden, d);
    if (residual) {
      for (let i: usize = 0; i < ((<usize>d) << 6); i += 16) {
        v128.store(o + i, f32x4.add(v128.load(o + i), v128.load(hb + i)));
      }
    }
    moments(o, d, sum + lanes, sumOfSquares + lanes);
  }
}

/**
 * One MLP block backward, up to the normalised input x: from dOut to dx [block][d][16], the lane sums of dx
 * and dx * x, and the parameter gradients, one set of `parameterCount` floats for every `chunk` blocks (at
 * gradients + index of the chunk): sums in a fixed order whatever the number of threads. `first` is a multiple
 * of `chunk`. scratch: (3 d + 2 hidden) x 64 + parameterCount x 16 bytes.
 */
export function metaBackward(
  parameters: usize,
  d: i32,
  hidden: i32,
  h: usize,
  mean: usize,
  inverse: usize,
  dOut: usize,
  dx: usize,
  sum: usize,
  sumOfProducts: usize,
  gradients: usize,
  chunk: i32,
  scratch: usize,
  first: i32,
  end: i32,
): void {
  const beta = parameters + ((<usize>d) << 2);
  const w1 = beta + ((<usize>d) << 2);
  const b1 = w1 + ((<usize>(d * hidden)) << 2);
  const w2 = b1 + ((<usize>hidden) << 2);
  const count = 2 * d + 2 * d * hidden + hidden + d;
  const x = scratch;
  const u = feature(x, d);
  const du = feature(u, d);
  const a = feature(du, d);
  const da = feature(a, hidden);
  const dGamma = feature(da, hidden);
  const dBeta = dGamma + ((<usize>d) << 4);
  const dW1 = dBeta + ((<usize>d) << 4);
  const dB1 = dW1 + ((<usize>(d * hidden)) << 4);
  const dW2 = dB1 + ((<usize>hidden) << 4);
  const dB2 = dW2 + ((<usize>(d * hidden)) << 4);
  for (let start = first; start < end; start += chunk) {
    memory.fill(dGamma, 0, (<usize>count) << 4);
    const last = min(end, start + chunk);
    for (let block = <usize>start; block < <usize>last; block++) {
      const lanes = block * BLOCK_BYTES;
      const base = lanes * <usize>d;
      normalise(h + base, mean + lanes, inverse + lanes, parameters, beta, x, u, d);
      affine(w1, b1, u, a, d, hidden);
      geluWithSlope(a, da, hidden << 2);
      addOuter(dOut + base, a, dW2, dB2, hidden, d);
      // `a` is free now: it takes W2^T dOut.
      affineTransposed(w2, dOut + base, a, hidden, d);
      for (let i: usize = 0; i < ((<usize>hidden) << 6); i += 16) {
        v128.store(da + i, f32x4.mul(v128.load(da + i), v128.load(a + i)));
      }
      addOuter(da, u, dW1, dB1, d, hidden);
      affineTransposed(w1, da, du, d, hidden);
      for (let lane: usize = 0; lane < 64; lane += 16) {
        let s = f32x4.splat(0);
        let sx = f32x4.splat(0);
        for (let i = 0; i < d; i++) {
          const g = v128.load(feature(du, i) + lane);
          const normal = v128.load(feature(x, i) + lane);
          const gx = f32x4.mul(g, normal);
          const i4 = (<usize>i) << 4;
          v128.store(dGamma + i4, f32x4.add(v128.load(dGamma + i4), gx));
          v128.store(dBeta + i4, f32x4.add(v128.load(dBeta + i4), g));
          const scale = splat(parameters, i);
          const gn = f32x4.mul(g, scale);
          v128.store(feature(dx + base, i) + lane, gn);
          s = f32x4.add(s, gn);
          sx = f32x4.add(sx, f32x4.mul(gn, normal));
        }
        v128.store(sum + lanes + lane, s);
        v128.store(sumOfProducts + lanes + lane, sx);
      }
    }
    const target = gradients + ((<usize>(start / chunk) * <usize>count) << 2);
    for (let i: usize = 0; i < <usize>count; i++) {
      const v = v128.load(dGamma + (i << 4));
      const low = f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1);
      store<f32>(target + (i << 2), low + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3)));
    }
  }
}

/**
 * Gradient through the normalisation: dh = r (dx - meanOfDx - x meanOfDxX) (+ dOut in a residual block), where
 * the two means are taken over the sub-vector's group. dh may be dOut.
 */
export function metaBackwardNorm(
  d: i32,
  residual: i32,
  h: usize,
  mean: usize,
  inverse: usize,
  dx: usize,
  meanOfDx: usize,
  meanOfDxX: usize,
  dOut: usize,
  dh: usize,
  first: i32,
  end: i32,
): void {
  for (let block = <usize>first; block < <usize>end; block++) {
    const lanes = block * BLOCK_BYTES;
    const base = lanes * <usize>d;
    for (let lane: usize = 0; lane < 64; lane += 16) {
      const m = v128.load(mean + lanes + lane);
      const r = v128.load(inverse + lanes + lane);
      const t1 = v128.load(meanOfDx + lanes + lane);
      const t2 = v128.load(meanOfDxX + lanes + lane);
      for (let i = 0; i < d; i++) {
        const at = feature(base, i) + lane;
        const x = f32x4.mul(f32x4.sub(v128.load(h + at), m), r);
        const centred = f32x4.sub(f32x4.sub(v128.load(dx + at), t1), f32x4.mul(x, t2));
        let g = f32x4.mul(r, centred);
        if (residual) g = f32x4.add(g, v128.load(dOut + at));
        v128.store(dh + at, g);
      }
    }
  }
}

/** dy = w (y - x) for lane weights w; errors [block] = sum of w (y - x)^2 over the block. */
export function metaLoss(
  d: i32,
  y: usize,
  x: usize,
  weights: usize,
  dy: usize,
  errors: usize,
  first: i32,
  end: i32,
): void {
  for (let block = <usize>first; block < <usize>end; block++) {
    const lanes = block * BLOCK_BYTES;
    const base = lanes * <usize>d;
    let sum = f32x4.splat(0);
    for (let lane: usize = 0; lane < 64; lane += 16) {
      const w = v128.load(weights + lanes + lane);
      for (let i = 0; i < d; i++) {
        const at = feature(base, i) + lane;
        const e = f32x4.sub(v128.load(y + at), v128.load(x + at));
        const we = f32x4.mul(w, e);
        v128.store(dy + at, we);
        sum = f32x4.add(sum, f32x4.mul(we, e));
      }
    }
    const low = f32x4.extract_lane(sum, 0) + f32x4.extract_lane(sum, 1);
    store<f32>(errors + (block << 2), low + (f32x4.extract_lane(sum, 2) + f32x4.extract_lane(sum, 3)));
  }
}

/**
 * The straight-through step: dz = scale dq + pull (z - q), with scale and pull of real lanes only (`present`
 * is 1, or 0 for padding). dq is replaced by pull (q - z): the gradient of the lane's entry.
 */
export function metaStraightThrough(
  d: i32,
  z: usize,
  q: usize,
  present: usize,
  scale: f32,
  pull: f32,
  dq: usize,
  dz: usize,
  first: i32,
  end: i32,
): void {
  for (let block = <usize>first; block < <usize>end; block++) {
    const lanes = block * BLOCK_BYTES;
    const base = lanes * <usize>d;
    for (let lane: usize = 0; lane < 64; lane += 16) {
      const on = v128.load(present + lanes + lane);
      const p = f32x4.mul(on, f32x4.splat(pull));
      for (let i = 0; i < d; i++) {
        const at = feature(base, i) + lane;
        const difference = f32x4.mul(p, f32x4.sub(v128.load(z + at), v128.load(q + at)));
        v128.store(dz + at, f32x4.add(f32x4.mul(f32x4.splat(scale), v128.load(dq + at)), difference));
        v128.store(dq + at, f32x4.neg(difference));
      }
    }
  }
}

/** target[codes] += values, over blocks [block][d][16]; one thread, so that the order of the sums is fixed. */
export function metaScatterAdd(
  d: i32,
  values: usize,
  codes: usize,
  target: usize,
  first: i32,
  end: i32,
): void {
  for (let block = <usize>first; block < <usize>end; block++) {
    const v = values + block * BLOCK_BYTES * <usize>d;
    for (let lane: usize = 0; lane < 64; lane += 4) {
      const row = target + ((<usize>load<u32>(codes + block * BLOCK_BYTES + lane) * <usize>d) << 2);
      for (let i = 0; i < d; i++) {
        const at = row + ((<usize>i) << 2);
        store<f32>(at, load<f32>(at) + load<f32>(feature(v, i) + lane));
      }
    }
  }
}
