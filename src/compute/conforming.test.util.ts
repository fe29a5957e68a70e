/**
 * Cases that run over every backend, compared with the reference. Tolerances are relative to the largest
 * value of the case; f32 sums of n terms may differ by about sqrt(n) * 6e-8 of it.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Backend, Buffer } from "./backend.js";
import { ReferenceBackend } from "./reference/backend.js";
import { WasmBackend } from "./wasm/backend.js";

const plain = await Promise.all(
  [1, 2, 3].map((threads) => WasmBackend.create({ threads, arithmetic: "plain" })),
);
/** The fused kernels and their wide tiles, where this machine has them. */
const fused = await Promise.all(
  [false, true].flatMap((wide) => [1, 2].map((threads) => WasmBackend.create({ threads, wide }))),
).then((backends) => backends.filter(({ runtime }) => runtime.arithmetic !== "plain"));
export const wasm = [...plain, ...fused];
export const reference = new ReferenceBackend();
after(() => Promise.all(wasm.map((backend) => backend.close())));

/** Uniform numbers in [-1, 1), the same on every run. */
export function numbers(count: number, seed: number): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  });
}

export function upload(backend: Backend, data: Float32Array): Buffer {
  const buffer = backend.allocate(data.length);
  backend.write(buffer, data);
  return buffer;
}

/** Runs the case on all backends: each close to the reference, those of one arithmetic bit for bit the same. */
export function conforms(
  name: string,
  tolerance: number,
  run: (backend: Backend) => Promise<Float32Array>,
): void {
  test(name, async () => {
    const expected = await run(reference);
    let scale = 1e-30;
    for (const value of expected) scale = Math.max(scale, Math.abs(value));
    const single = new Map<string, Float32Array>();
    for (const backend of wasm) {
      const actual = await run(backend);
      assert.equal(actual.length, expected.length);
      for (let i = 0; i < expected.length; i++) {
        const error = Math.abs(actual[i] - expected[i]);
        if (!(error <= tolerance * scale))
          assert.fail(`${backend.threads} threads: element ${i} is ${actual[i]}, not ${expected[i]}`);
      }
      const { arithmetic } = backend.runtime;
      if (!single.has(arithmetic)) single.set(arithmetic, actual);
      assert.deepEqual(actual, single.get(arithmetic), `${backend.threads} threads differ from one`);
    }
  });
}
