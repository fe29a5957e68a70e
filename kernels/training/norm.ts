// Gradients of RMSNorm and of parameters that scale or shift columns.

import { f32Bytes, multiplyAdd, sumLanes } from "../vector";

/**
 * dx += the gradient of RMSNorm with respect to x, rows first .. end - 1: with s = 1 / sqrt(mean(x²) + epsilon),
 * dx += s w dy - x s³ mean(w dy x). Leaves each row's s in `scales` [rows], for the weight's gradient.
 */
export function rmsNormBackward(
  x: usize,
  weight: usize,
  dy: usize,
  dx: usize,
  scales: usize,
  columns: i32,
  epsilon: f32,
  first: i32,
  end: i32,
): void {
  const stride = f32Bytes(columns);
  const fours = f32Bytes(columns & ~3);
  for (let r = first; r < end; r++) {
    const row = <usize>r * stride;
    const xr = x + row;
    const gr = dy + row;
    const to = dx + row;
    let a = f32x4.splat(0);
    let b = a;
    let p: usize = 0;
    for (; p < fours; p += 16) {
      const u = v128.load(xr + p);
      a = multiplyAdd(u, u, a);
      b = multiplyAdd(f32x4.mul(v128.load(gr + p), v128.load(weight + p)), u, b);
    }
    let squares = sumLanes(a);
    let dot = sumLanes(b);
    for (; p < stride; p += 4) {
      const u = load<f32>(xr + p);
      squares += u * u;
      dot += load<f32>(gr + p) * load<f32>(weight + p) * u;
    }
    const scale = <f32>1 / sqrt<f32>(squares / <f32>columns + epsilon);
    const back = (scale * scale * dot) / <f32>columns;
    store<f32>(scales + f32Bytes(r), scale);
    const s = f32x4.splat(scale);
    const k = f32x4.splat(back);
    for (p = 0; p < fours; p += 16) {
      const direct = f32x4.mul(v128.load(gr + p), v128.load(weight + p));
      const change = f32x4.mul(s, f32x4.sub(direct, f32x4.mul(v128.load(xr + p), k)));
      v128.store(to + p, f32x4.add(v128.load(to + p), change));
    }
    for (; p < stride; p += 4) {
      const change = scale * (load<f32>(gr + p) * load<f32>(weight + p) - load<f32>(xr + p) * back);
      store<f32>(to + p, load<f32>(to + p) + change);
    }
  }
}

/**
 * sum[c] += Σ_r a[r][c] b[r][c] scales[r], columns first .. end - 1; `b` [rows, columns] and `scales` [rows]
 * may be 0 and then count as ones.
 */
export function columnDots(
  a: usize,
  b: usize,
  scales: usize,
  sum: usize,
  rows: i32,
  columns: i32,
  first: i32,
  end: i32,
): void {
  const stride = f32Bytes(columns);
  let c = first;
  // 16 columns are a line of cache: a narrower walk down the rows would read each line more than once.
  for (; c <= end - 16; c += 16) {
    let s0 = f32x4.splat(0);
    let s1 = s0,
      s2 = s0,
      s3 = s0;
    let p = a + f32Bytes(c);
    let q = b + f32Bytes(c);
    for (let r = 0; r < rows; r++, p += stride, q += stride) {
      let v0 = v128.load(p);
      let v1 = v128.load(p, 16);
      let v2 = v128.load(p, 32);
      let v3 = v128.load(p, 48);
      if (b) {
        v0 = f32x4.mul(v0, v128.load(q));
        v1 = f32x4.mul(v1, v128.load(q, 16));
        v2 = f32x4.mul(v2, v128.load(q, 32));
        v3 = f32x4.mul(v3, v128.load(q, 48));
      }
      if (scales) {
        const s = v128.load32_splat(scales + f32Bytes(r));
        v0 = f32x4.mul(v0, s);
        v1 = f32x4.mul(v1, s);
        v2 = f32x4.mul(v2, s);
        v3 = f32x4.mul(v3, s);
      }
      s0 = f32x4.add(s0, v0);
      s1 = f32x4.add(s1, v1);
      s2 = f32x4.add(s2, v2);
      s3 = f32x4.add(s3, v3);
    }
    const to = sum + f32Bytes(c);
    v128.store(to, f32x4.add(v128.load(to), s0));
    v128.store(to, f32x4.add(v128.load(to, 16), s1), 16);
    v128.store(to, f32x4.add(v128.load(to, 32), s2), 32);
    v128.store(to, f32x4.add(v128.load(to, 48), s3), 48);
  }
  for (; c < end; c++) {
    let total: f32 = 0;
    let p = a + f32Bytes(c);
    let q = b + f32Bytes(c);
    for (let r = 0; r < rows; r++, p += stride, q += stride) {
      let v = load<f32>(p);
      if (b) v *= load<f32>(q);
      if (scales) v *= load<f32>(scales + f32Bytes(r));
      total += v;
    }
    const to = sum + f32Bytes(c);
    store<f32>(to, load<f32>(to) + total);
  }
}
