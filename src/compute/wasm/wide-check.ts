/** Whether the engine's joined vectors compute what single ones do. */
import type { WasmRuntime } from "./runtime.js";

/** Rows and columns of both sides and length of the sums: panels of 8, octets of 8. */
const SIZE = 64;
/** Until then the optimising compiler has replaced the first code, whose results are right. */
const MILLISECONDS = 60;

/**
 * Multiplies the same numbers again and again, in the wide tiles that the runtime uses and in narrow ones, and
 * compares every bit.
 */
export function joinsExactly(runtime: WasmRuntime): boolean {
  const bytes = 4 * SIZE * SIZE;
  const area = runtime.allocate(4 * bytes + 256 + 4);
  const [a, b, narrow, wide, scratch] = [0, 1, 2, 3, 4].map((i) => area + i * bytes);
  const counter = scratch + 256;
  const floats = (c: number, joined: boolean) => {
    runtime.i32(counter, 1)[0] = 0;
    const flags = [0, joined ? 1 : 0, 0];
    runtime.exports["multiplyPanels"](a, b, c, SIZE, SIZE, SIZE, ...flags, counter, scratch);
  };
  const rows = (c: number, joined: boolean) => {
    runtime.f32(c, SIZE * SIZE).fill(0);
    const stride = 4 * SIZE;
    const sizes = [SIZE, SIZE, SIZE];
    runtime.exports["multiplyAccumulate"](a, stride, 4, b, stride, c, stride, ...sizes, joined ? 1 : 0);
  };
  const shorts = (c: number, joined: boolean) => {
    const [units, stride, octets] = [b, 2 * SIZE, SIZE / 8];
    const result = [c, 4 * SIZE, SIZE, octets, SIZE, 0];
    runtime.exports["multiplyShort"](a, stride, units, b, stride, ...result, joined ? scratch : 0);
  };
  try {
    return (runtime.arithmetic === "wide" ? [floats, rows, shorts] : [shorts]).every((multiply) => {
      const end = performance.now() + MILLISECONDS;
      fill(runtime, a, 2 * SIZE * SIZE);
      const run = (c: number, joined: boolean) => {
        multiply(c, joined);
        return runtime.i32(c, SIZE * SIZE);
      };
      const expected = run(narrow, false).slice();
      let same = true;
      while (same && performance.now() < end)
        for (const actual of [run(wide, true), run(narrow, false)])
          for (let i = 0; i < expected.length; i++) same &&= actual[i] === expected[i];
      return same;
    });
  } finally {
    runtime.free(area);
  }
}

/** Numbers in [-1, 1); halves of their bits are whole numbers of 16 bits as good as any. */
function fill(runtime: WasmRuntime, pointer: number, count: number): void {
  const values = runtime.f32(pointer, count);
  let state = 1;
  for (let i = 0; i < count; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = state / 2 ** 31 - 1;
  }
}
