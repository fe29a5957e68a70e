// The activation of the meta codec's networks (meta-network.ts). Not exported from the module.
//
// Phi(x) - 1/2 = x P(x^2) / Q(x^2) for |x| <= 5: rational least-squares fit, error of gelu below 1e-7 there and
// 3e-6 beyond. No exponential, and its derivative is exact. src/codec/meta/gelu.ts has the same numbers.
const LIMIT: f32 = 5.0;
const P0: f32 = 0.39894094758189624;
const P1: f32 = 0.05052906605816727;
const P2: f32 = 0.00557677117334332;
const P3: f32 = 0.0003271457725057028;
const P4: f32 = 0.000006178996234576764;
const Q1: f32 = 0.2933100786647611;
const Q2: f32 = 0.037884281216893544;
const Q3: f32 = 0.0027629698892168795;
const Q4: f32 = 0.00011862846043268584;
const Q5: f32 = 5.333739169819462e-7;

// @ts-ignore: decorator
@inline
function horner(t: v128, high: v128, low: f32): v128 {
  return f32x4.add(f32x4.mul(high, t), f32x4.splat(low));
}

// @ts-ignore: decorator
@inline
function geluNumerator(t: v128): v128 {
  return horner(t, horner(t, horner(t, horner(t, f32x4.splat(P4), P3), P2), P1), P0);
}

// @ts-ignore: decorator
@inline
function geluDenominator(t: v128): v128 {
  return horner(t, horner(t, horner(t, horner(t, horner(t, f32x4.splat(Q5), Q4), Q3), Q2), Q1), 1);
}

// @ts-ignore: decorator
@inline
function clamp(x: v128): v128 {
  return f32x4.pmax(f32x4.splat(-LIMIT), f32x4.pmin(f32x4.splat(LIMIT), x));
}

/** x[i] <- gelu(x[i]) over `vectors` v128s. */
export function gelu(x: usize, vectors: i32): void {
  for (let i = 0; i < vectors; i++) {
    const v = v128.load(x);
    const c = clamp(v);
    const t = f32x4.mul(c, c);
    const ratio = f32x4.div(geluNumerator(t), geluDenominator(t));
    v128.store(x, f32x4.mul(v, f32x4.add(f32x4.splat(0.5), f32x4.mul(c, ratio))));
    x += 16;
  }
}

/** slope[i] <- gelu'(x[i]), x[i] <- gelu(x[i]) over `vectors` v128s. */
export function geluWithSlope(x: usize, slope: usize, vectors: i32): void {
  for (let i = 0; i < vectors; i++) {
    const v = v128.load(x);
    const c = clamp(v);
    const t = f32x4.mul(c, c);
    const denominator = geluDenominator(t);
    const inverse = f32x4.div(f32x4.splat(1), denominator);
    const ratio = f32x4.mul(geluNumerator(t), inverse);
    const phi = f32x4.add(f32x4.splat(0.5), f32x4.mul(c, ratio));
    // d/dx [x (1/2 + x R(x^2))] = phi + x (R + 2 t R'), R' = (P' - R Q') / Q; zero beyond the limit.
    const p = horner(t, horner(t, horner(t, f32x4.splat(4 * P4), 3 * P3), 2 * P2), P1);
    const q = horner(t, horner(t, horner(t, horner(t, f32x4.splat(5 * Q5), 4 * Q4), 3 * Q3), 2 * Q2), Q1);
    const change = f32x4.mul(f32x4.sub(p, f32x4.mul(ratio, q)), inverse);
    const density = f32x4.mul(v, f32x4.add(ratio, f32x4.mul(f32x4.add(t, t), change)));
    v128.store(slope, f32x4.add(phi, v128.and(density, f32x4.eq(v, c))));
    v128.store(x, f32x4.mul(v, phi));
    x += 16;
    slope += 16;
  }
}
