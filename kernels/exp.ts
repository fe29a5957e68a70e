// exp of four f32 values: relative error below 2e-7 over -87.3 .. 88.3; 0 below, 2.4e38 above, NaN stays NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2; e^r = 1 + r + r²/2 + r³ q(r), q the cubic of least relative error of
// e^r (3.7e-9, by Lawson's reweighted least squares).
//
// The constants lie in memory, four copies each: V8 rebuilds a v128 constant at every use in a loop, three
// instructions against one load.

// @ts-ignore: decorator
@lazy
const CONSTANTS: usize = memory.data<f32>([
  -87.33654, -87.33654, -87.33654, -87.33654, // 0: least x
  88.37626, 88.37626, 88.37626, 88.37626, // 16: greatest x
  1.4426950408889634, 1.4426950408889634, 1.4426950408889634, 1.4426950408889634, // 32: 1 / ln 2
  0.693359375, 0.693359375, 0.693359375, 0.693359375, // 48: ln 2, a part of 9 bits: n times it is exact
  -2.1219444005469057e-4, -2.1219444005469057e-4, -2.1219444005469057e-4, -2.1219444005469057e-4, // 64: the rest
  1.3863726933840133e-3, 1.3863726933840133e-3, 1.3863726933840133e-3, 1.3863726933840133e-3, // 80: q, from r³
  8.367542520574846e-3, 8.367542520574846e-3, 8.367542520574846e-3, 8.367542520574846e-3, // 96
  0.04166723996492597, 0.04166723996492597, 0.04166723996492597, 0.04166723996492597, // 112
  0.16666533546349485, 0.16666533546349485, 0.16666533546349485, 0.16666533546349485, // 128
  0.5, 0.5, 0.5, 0.5, // 144
  1, 1, 1, 1, // 160
]);

// @ts-ignore: decorator
@inline
export function exp4(value: v128): v128 {
  const c = CONSTANTS;
  const least = v128.load(c);
  const one = v128.load(c, 160);
  const x = f32x4.pmin(f32x4.pmax(value, least), v128.load(c, 16));
  const n = f32x4.nearest(f32x4.mul(x, v128.load(c, 32)));
  const r = f32x4.sub(f32x4.sub(x, f32x4.mul(n, v128.load(c, 48))), f32x4.mul(n, v128.load(c, 64)));
  let q = f32x4.add(f32x4.mul(v128.load(c, 80), r), v128.load(c, 96));
  q = f32x4.add(f32x4.mul(q, r), v128.load(c, 112));
  q = f32x4.add(f32x4.mul(q, r), v128.load(c, 128));
  q = f32x4.add(f32x4.mul(q, r), v128.load(c, 144));
  q = f32x4.add(f32x4.add(f32x4.mul(q, f32x4.mul(r, r)), r), one);
  // 2^n: the bits of 1 are 127 << 23.
  const power = i32x4.add(i32x4.shl(i32x4.trunc_sat_f32x4_s(n), 23), one);
  return v128.andnot(f32x4.mul(q, power), f32x4.lt(value, least));
}
