/** Whether the engine's joined vectors compute what single ones do. */
import type { WasmRuntime } from "./runtime.js";

/** Columns of both sides and length of the sums: panels of 8. */
const SIZE = 64;
/** Until then the optimising compiler has replaced the first code, whose results are right. */
const MILLISECONDS = 60;

/** Multiplies the same panels again and again, in wide tiles and narrow ones, and compares every bit. */
export function joinsExactly(runtime: WasmRuntime): boolean {
  const bytes = 4 * SIZE * SIZE;
  const area = runtime.allocate(4 * bytes + 256 + 4);
  const [a, b, narrow, wide, scratch] = [0, 1, 2, 3, 4].map((i) => area + i * bytes);
  const counter = scratch + 256;
  let state = 1;
  for (const side of [a, b])
    for (const [i] of runtime.f32(side, SIZE * SIZE).entries()) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      runtime.f32(side, SIZE * SIZE)[i] = state / 2 ** 31 - 1;
    }
  const multiply = (c: number, joined: 0 | 1) => {
    runtime.i32(counter, 1)[0] = 0;
    runtime.exports["multiplyPanels"](a, b, c, SIZE, SIZE, SIZE, 0, joined, 0, counter, scratch);
    return runtime.i32(c, SIZE * SIZE);
  };
  const expected = multiply(narrow, 0).slice();
  const end = performance.now() + MILLISECONDS;
  let same = true;
  while (same && performance.now() < end)
    for (const actual of [multiply(wide, 1), multiply(narrow, 0)])
      for (let i = 0; i < expected.length; i++) same &&= actual[i] === expected[i];
  runtime.free(area);
  return same;
}
