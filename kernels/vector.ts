// Small SIMD helpers that other kernels inline. Not exported from the module.

/** (v0 + v2) + (v1 + v3): the one order of horizontal sums, so that results do not depend on tiling. */
// @ts-ignore: decorator
@inline
export function sumLanes(v: v128): f32 {
  return (
    f32x4.extract_lane(v, 0) + f32x4.extract_lane(v, 2) + (f32x4.extract_lane(v, 1) + f32x4.extract_lane(v, 3))
  );
}

/** The four sums of lanes, each as `sumLanes` makes it. */
// @ts-ignore: decorator
@inline
export function sumLanes4(a: v128, b: v128, c: v128, d: v128): v128 {
  const ab = f32x4.add(v128.shuffle<f32>(a, b, 0, 4, 1, 5), v128.shuffle<f32>(a, b, 2, 6, 3, 7));
  const cd = f32x4.add(v128.shuffle<f32>(c, d, 0, 4, 1, 5), v128.shuffle<f32>(c, d, 2, 6, 3, 7));
  return f32x4.add(v128.shuffle<f32>(ab, cd, 0, 1, 4, 5), v128.shuffle<f32>(ab, cd, 2, 3, 6, 7));
}

/**
 * a b + c. The build with relaxed SIMD leaves rounding the product to the processor; the runtime takes that
 * build only where the processor does not round it (`fusesMultiplyAdd`), so there are two arithmetics, not many.
 */
// @ts-ignore: decorator
@inline
export function multiplyAdd(a: v128, b: v128, c: v128): v128 {
  if (ASC_FEATURE_RELAXED_SIMD) return f32x4.relaxed_madd(a, b, c);
  return f32x4.add(c, f32x4.mul(a, b));
}

// @ts-ignore: decorator
@inline
export function maxLanes(v: v128): f32 {
  return max(
    max(f32x4.extract_lane(v, 0), f32x4.extract_lane(v, 2)),
    max(f32x4.extract_lane(v, 1), f32x4.extract_lane(v, 3)),
  );
}

/** Bytes of `count` f32 values. */
// @ts-ignore: decorator
@inline
export function f32Bytes(count: i32): usize {
  return (<usize>count) << 2;
}

/** Zeroes `count` f32 values. memory.fill is a call out of the module, 30 ns: too long for short rows. */
export function zero(p: usize, count: i32): void {
  const zeros = f32x4.splat(0);
  for (; count >= 4; count -= 4, p += 16) v128.store(p, zeros);
  for (; count > 0; count--, p += 4) store<f32>(p, 0);
}
