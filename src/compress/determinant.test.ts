import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createRotation, rotateRows } from "../codec/rotation.js";
import { WasmBackend } from "../compute/wasm/backend.js";
import { Random } from "../random.js";
import { rootDeterminant } from "./determinant.js";

const backend = await WasmBackend.create({ threads: 1 });
after(() => backend.close());

/** A symmetric matrix with these eigenvalues, in directions that no axis has: R diag(values) Rᵀ. */
function rotated(values: readonly number[], factor = 1): Float32Array {
  const n = values.length;
  const rotation = createRotation(n, 5);
  let matrix = new Float32Array(n * n);
  for (let i = 0; i < n; i++) matrix[i * (n + 1)] = factor * values[i];
  for (let side = 0; side < 2; side++) {
    rotateRows(rotation, matrix, n);
    matrix = matrix.map((_, i) => matrix[(i % n) * n + Math.floor(i / n)]);
  }
  return matrix;
}

/** With a hundredth of the mean added to each, as the function does. */
function geometricMean(values: readonly number[]): number {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  const logs = values.reduce((sum, x) => sum + Math.log(x + 0.01 * mean), 0);
  return Math.exp(logs / values.length);
}

/** Eigenvalues between 1 / spread and spread, evenly on a logarithmic scale. */
function eigenvalues(n: number, spread: number): number[] {
  return Array.from({ length: n }, (_, i) => spread ** (n === 1 ? 1 : (2 * i) / (n - 1) - 1));
}

for (const n of [1, 2, 7, 64, 65, 130, 200])
  for (const spread of [1, 4, 1000]) {
    test(`${n} eigenvalues from 1/${spread} to ${spread}`, () => {
      const values = eigenvalues(n, spread);
      const root = rootDeterminant(backend, rotated(values), 1);
      const expected = geometricMean(values);
      assert.ok(Math.abs(root / expected - 1) < 1e-4, `${root}, not ${expected}`);
    });
  }

test("inputs that leave most directions empty", () => {
  const values = Array.from({ length: 96 }, (_, i) => (i % 3 === 0 ? 2 + i : 0));
  const root = rootDeterminant(backend, rotated(values), 1);
  assert.ok(Math.abs(root / geometricMean(values) - 1) < 1e-3, `${root}, not ${geometricMean(values)}`);
});

test("powers far from 1, and sums over many tokens", () => {
  const values = eigenvalues(48, 20);
  for (const power of [1e-25, 1e-6, 1e10, 1e25]) {
    for (const count of [1, 4096]) {
      const sums = rotated(values, power * count);
      const kept = sums.slice();
      const ratio = rootDeterminant(backend, sums, count) / (power * geometricMean(values));
      assert.ok(Math.abs(ratio - 1) < 1e-4, `power ${power}, ${count} tokens: ${ratio}`);
      assert.deepEqual(sums, kept);
    }
  }
});

test("white inputs have their power as root, those of few tokens less", async () => {
  const n = 40;
  const roots: number[] = [];
  for (const tokens of [60, 8000]) {
    const random = new Random(2);
    const [x, gram] = [backend.allocate(tokens * n), backend.allocate(n * n)];
    backend.write(
      x,
      Float32Array.from({ length: tokens * n }, () => 3 * random.normal()),
    );
    backend.gram(x, gram, tokens, n);
    roots.push(rootDeterminant(backend, await backend.read(gram), tokens));
    backend.free(x);
    backend.free(gram);
  }
  assert.ok(Math.abs(roots[1] / (9 * 1.01) - 1) < 0.01, `${roots[1]}`);
  assert.ok(roots[0] < 0.8 * 9, `${roots[0]}`);
});

test("inputs that are always 0 give 0, and no call keeps memory", () => {
  const before = backend.runtime.bytesInUse;
  for (const n of [1, 70]) assert.equal(rootDeterminant(backend, new Float32Array(n * n), 100), 0);
  assert.ok(rootDeterminant(backend, rotated([1, 2, 3, 4]), 1) > 1);
  assert.equal(backend.runtime.bytesInUse, before);
});
