// From products at positions in lanes to the rows they belong to. rowAt [16 a step]: the row of each position, -1 where
// there is none. Not exported from the module.

import { f32Bytes } from "./vector";

/** Whether four lanes each have rows that follow one another, for four steps. */
// @ts-ignore: decorator
@inline
export function isRun(rowAt: usize): bool {
  const rows = v128.load(rowAt);
  const second = i32x4.eq(i32x4.sub(v128.load(rowAt + 64), rows), i32x4.splat(1));
  // A lane without rows has -1 throughout, and one that ends has it from then on.
  return i32x4.all_true(
    v128.and(second, i32x4.eq(i32x4.sub(v128.load(rowAt + 192), rows), i32x4.splat(3))),
  );
}

/** y[row] = base[row] + v scales[row] for four steps of four lanes that are runs; `base` 0: nothing is added. */
// @ts-ignore: decorator
@inline
export function putRuns(
  v0: v128,
  v1: v128,
  v2: v128,
  v3: v128,
  rowAt: usize,
  scales: usize,
  base: usize,
  y: usize,
): void {
  const a = v128.shuffle<i32>(v0, v1, 0, 4, 1, 5);
  const b = v128.shuffle<i32>(v0, v1, 2, 6, 3, 7);
  const c = v128.shuffle<i32>(v2, v3, 0, 4, 1, 5);
  const d = v128.shuffle<i32>(v2, v3, 2, 6, 3, 7);
  putRun(v128.shuffle<i64>(a, c, 0, 2), load<i32>(rowAt), scales, base, y);
  putRun(v128.shuffle<i64>(a, c, 1, 3), load<i32>(rowAt, 4), scales, base, y);
  putRun(v128.shuffle<i64>(b, d, 0, 2), load<i32>(rowAt, 8), scales, base, y);
  putRun(v128.shuffle<i64>(b, d, 1, 3), load<i32>(rowAt, 12), scales, base, y);
}

/** Four rows from `row` on. */
// @ts-ignore: decorator
@inline
function putRun(values: v128, row: i32, scales: usize, base: usize, y: usize): void {
  const at = f32Bytes(row);
  const scaled = f32x4.mul(values, v128.load(scales + at));
  v128.store(y + at, base ? f32x4.add(v128.load(base + at), scaled) : scaled);
}

/** The same for `count` products, one after the other, of which not all need have a row. */
// @ts-ignore: decorator
@inline
export function putEach(
  products: usize,
  rowAt: usize,
  scales: usize,
  base: usize,
  y: usize,
  count: i32,
): void {
  const end = products + f32Bytes(count);
  for (; products < end; products += 4, rowAt += 4) {
    const row = load<i32>(rowAt);
    if (row < 0) continue;
    const at = f32Bytes(row);
    const scaled = load<f32>(products) * load<f32>(scales + at);
    store<f32>(y + at, base ? load<f32>(base + at) + scaled : scaled);
  }
}

/** y[row] = products[i] scales[row] for the row at each of `count` positions, from a step's first on, that has one. */
export function scatter(products: usize, rowAt: usize, scales: usize, y: usize, count: i32): void {
  // Four steps at a time: what four lanes have there are four times four rows that mostly follow one another.
  for (; count >= 64; count -= 64, products += 256, rowAt += 256)
    for (let lanes: usize = 0; lanes < 64; lanes += 16) {
      const from = products + lanes;
      const rows = rowAt + lanes;
      if (isRun(rows)) {
        const v0 = v128.load(from);
        const v1 = v128.load(from, 64);
        const v2 = v128.load(from, 128);
        const v3 = v128.load(from, 192);
        putRuns(v0, v1, v2, v3, rows, scales, 0, y);
      } else
        for (let step: usize = 0; step < 256; step += 64) putEach(from + step, rows + step, scales, 0, y, 4);
    }
  putEach(products, rowAt, scales, 0, y, count);
}
