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

test("the check passes here, and not where a wide sum is another", { skip }, () => {
  assert.ok(joinsExactly(wide.runtime));
  const { exports } = wide.runtime;
  const wrong = (...args: number[]) => {
    const result = exports["multiplyPanels"](...args);
    const joined = args[7] === 1;
    if (joined) wide.runtime.f32(args[2], 1)[0] += 1e-6;
    return result;
  };
  const runtime = Object.create(wide.runtime, { exports: { value: { ...exports, multiplyPanels: wrong } } });
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
