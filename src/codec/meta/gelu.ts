/**
 * GELU with the error function replaced by a rational function: the same numbers as the kernels
 * (kernels/encode/meta-gelu.ts). Only + - * / are used, so that decoding is bit-exact in every engine,
 * which Math.exp does not promise. Error below 1e-7 for |x| <= 5, below 3e-6 beyond.
 */
const LIMIT = 5;
const P = [
  0.39894094758189624, 0.05052906605816727, 0.00557677117334332, 0.0003271457725057028,
  0.000006178996234576764,
];
const Q = [
  1, 0.2933100786647611, 0.037884281216893544, 0.0027629698892168795, 0.00011862846043268584,
  5.333739169819462e-7,
];

/** x * Phi(x), with Phi(x) = 1/2 + c P(c²) / Q(c²) and c = x clamped to ±5. */
export function gelu(x: number): number {
  const c = Math.max(-LIMIT, Math.min(LIMIT, x));
  const t = c * c;
  const p = (((P[4] * t + P[3]) * t + P[2]) * t + P[1]) * t + P[0];
  const q = ((((Q[5] * t + Q[4]) * t + Q[3]) * t + Q[2]) * t + Q[1]) * t + Q[0];
  return x * (0.5 + (c * p) / q);
}
