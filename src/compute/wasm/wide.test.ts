/** Wide tiles against narrow ones: gradients' products are the same bits, and the start-up check sees a difference. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { numbers, upload, wasm } from "../conforming.test.util.js";
import { createTrainingBackend } from "../create.js";
import type { WasmBackend } from "./backend.js";
import { joinsExactly } from "./wide-check.js";

const ofTwo = (arithmetic: string) =>
  wasm.find(({ threads, runtime }) => threads === 2 && runtime.arithmetic === arithmetic);
const [narrow, wide] = [ofTwo("fused")!, ofTwo("wide")!];
const skip = wide ? false : "this machine has no fused arithmetic";

for (const [tokens, m, n] of [
  [300, 64, 48],
  [7, 8, 16],
  [33, 19, 70],
  [64, 40, 8],
]) {
  const run = async (backend: WasmBackend) => {
    const [a, b] = [upload(backend, numbers(tokens * m, 1)), upload(backend, numbers(tokens * n, 2))];
    const [gram, cross, sum] = [
      upload(backend, numbers(m * m, 3)),
      upload(backend, numbers(m * n, 4)),
      upload(backend, numbers(tokens * n, 5)),
    ];
    backend.gram(a, gram, tokens, m);
    backend.crossGram(a, b, cross, tokens, m, n);
    backend.multiplyAdd(a, upload(backend, numbers(m * n, 6)), sum, tokens, m, n);
    return await Promise.all([gram, cross, sum].map((buffer) => backend.read(buffer)));
  };
  test(`sums over ${tokens} rows of ${m} and ${n} columns are the same bits`, { skip }, async () => {
    assert.deepEqual(await run(wide), await run(narrow));
  });
}

for (const [tokens, columns, outputs] of [
  [4, 8, 2],
  [6, 40, 18],
  [9, 576, 34],
])
  test(`whole numbers: ${tokens} tokens by ${outputs} rows of ${columns} are the same bits`, () => {
    const { runtime } = wasm[0];
    // What is beyond the last column is zero on one side, whatever it is on the other.
    const stride = 2 * columns + 32;
    const bytes = (rows: number) => rows * stride;
    const area = runtime.allocate(bytes(tokens) + bytes(outputs) + 4 * tokens * (1 + 2 * outputs) + 256);
    const [w, units] = [area + bytes(tokens), area + bytes(tokens) + bytes(outputs)];
    const results = [0, 1].map((i) => units + 4 * tokens * (1 + i * outputs));
    const scratch = results[1] + 4 * tokens * outputs;
    const shorts = (pointer: number, count: number, seed: number) =>
      new Int16Array(runtime.memory.buffer, pointer, count).set(numbers(count, seed).map((x) => 2047 * x));
    shorts(area, bytes(tokens) / 2, 1);
    for (let t = 0; t < tokens; t++)
      new Int16Array(runtime.memory.buffer, area + t * stride + 2 * columns, 16).fill(0);
    shorts(w, bytes(outputs) / 2, 2);
    runtime.f32(units, tokens).set(numbers(tokens, 3));
    for (const accumulate of [0, 1])
      for (const [i, sums] of [0, scratch].entries()) {
        const result = [results[i], 4 * outputs, tokens, columns / 8, outputs, accumulate, sums];
        runtime.exports["multiplyShort"](area, stride, units, w, stride, ...result);
      }
    const [narrow, wide] = results.map((pointer) => runtime.f32(pointer, tokens * outputs).slice());
    assert.ok(narrow.every((x) => x !== 0));
    assert.deepEqual(wide, narrow);
    runtime.free(area);
  });

for (const [kernel, flag, result] of [
  ["multiplyPanels", 7, 2],
  ["multiplyAccumulate", 10, 5],
  ["multiplyShort", 11, 5],
] as const)
  test(`the check passes here, and not where a wide sum of ${kernel} is another`, { skip }, () => {
    assert.ok(joinsExactly(wide.runtime));
    const { exports } = wide.runtime;
    const wrong = (...args: number[]) => {
      const returned = exports[kernel](...args);
      if (args[flag]) wide.runtime.f32(args[result], 1)[0] = 1.5;
      return returned;
    };
    const runtime = Object.create(wide.runtime, { exports: { value: { ...exports, [kernel]: wrong } } });
    for (const name of ["allocate", "free", "f32", "i32"])
      Object.defineProperty(runtime, name, {
        value: (...args: number[]) => Reflect.apply(Reflect.get(wide.runtime, name), wide.runtime, args),
      });
    assert.ok(!joinsExactly(runtime));
  });

test("training is wide where the engine joins vectors, and fused elsewhere", { skip }, async () => {
  const backend = await createTrainingBackend({ threads: 1 });
  try {
    const joins = process.arch === "x64" && Number.parseInt(process.versions.v8, 10) >= 13;
    assert.equal(backend.runtime.arithmetic, joins ? "wide" : "fused");
  } finally {
    await backend.close();
  }
});
