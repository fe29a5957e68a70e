// Triangular solves of many right-hand sides at once: the target correction of sequential compression
// (src/compress/correction.ts). f32; the reduction runs over contiguous memory on both sides.

/** Dot products of row `a` with four rows that lie `stride` bytes apart, over k in [from, to). Results to out[0..4). */
// @ts-ignore: decorator
@inline
function dot4(a: usize, x: usize, stride: usize, from: i32, to: i32, out: usize): void {
  let s0 = f32x4.splat(0),
    s1 = f32x4.splat(0),
    s2 = f32x4.splat(0),
    s3 = f32x4.splat(0);
  let k = from;
  for (; k <= to - 4; k += 4) {
    const p = (<usize>k) << 2;
    const w = v128.load(a + p);
    s0 = f32x4.add(s0, f32x4.mul(w, v128.load(x + p)));
    s1 = f32x4.add(s1, f32x4.mul(w, v128.load(x + stride + p)));
    s2 = f32x4.add(s2, f32x4.mul(w, v128.load(x + 2 * stride + p)));
    s3 = f32x4.add(s3, f32x4.mul(w, v128.load(x + 3 * stride + p)));
  }
  let r0 = sum(s0),
    r1 = sum(s1),
    r2 = sum(s2),
    r3 = sum(s3);
  for (; k < to; k++) {
    const p = (<usize>k) << 2;
    const w = load<f32>(a + p);
    r0 += w * load<f32>(x + p);
    r1 += w * load<f32>(x + stride + p);
    r2 += w * load<f32>(x + 2 * stride + p);
    r3 += w * load<f32>(x + 3 * stride + p);
  }
  store<f32>(out, r0);
  store<f32>(out, r1, 4);
  store<f32>(out, r2, 8);
  store<f32>(out, r3, 12);
}

// @ts-ignore: decorator
@inline
function sum(v: v128): f32 {
  return (
    f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 1) + (f32x4.extract_lane(v, 2) + f32x4.extract_lane(v, 3))
  );
}

/**
 * x (M Mᵀ)⁻¹ in place, by rows, for the upper triangular factor M of `factor` (encode/cholesky). `upper`
 * [n, n] is M, `lower` [n, n] is Mᵀ, `x` [rows, n] with rows a multiple of 4, `scratch` 16 bytes of this
 * thread's own.
 */
export function solveRows(upper: usize, lower: usize, x: usize, rows: i32, n: i32, scratch: usize): void {
  const stride = (<usize>n) << 2;
  for (let r = 0; r < rows; r += 4) {
    const base = x + <usize>r * stride;
    for (let j = n - 1; j >= 0; j--) {
      const row = upper + <usize>j * stride;
      dot4(row, base, stride, j + 1, n, scratch);
      finish(base + ((<usize>j) << 2), stride, scratch, load<f32>(row + ((<usize>j) << 2)));
    }
    for (let j = 0; j < n; j++) {
      const row = lower + <usize>j * stride;
      dot4(row, base, stride, 0, j, scratch);
      finish(base + ((<usize>j) << 2), stride, scratch, load<f32>(row + ((<usize>j) << 2)));
    }
  }
}

// @ts-ignore: decorator
@inline
function finish(x: usize, stride: usize, dots: usize, pivot: f32): void {
  for (let i: usize = 0; i < 4; i++) {
    const p = x + i * stride;
    store<f32>(p, (load<f32>(p) - load<f32>(dots + (i << 2))) / pivot);
  }
}
