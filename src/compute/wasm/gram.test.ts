/** Sums of outer products, against float64. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { WasmBackend } from "./backend.js";

const backends = await Promise.all([1, 3].map((threads) => WasmBackend.create({ threads })));
after(() => Promise.all(backends.map((backend) => backend.close())));

function wave(count: number, step: number): Float32Array {
  return Float32Array.from({ length: count }, (_, i) => Math.sin(i * step));
}

for (const [tokens, m, n] of [
  [1, 1, 1],
  [3, 5, 11],
  [300, 24, 24],
  [530, 19, 42],
]) {
  test(`gram and crossGram of ${tokens} tokens, ${m} and ${n} columns`, async () => {
    const a = wave(tokens * m, 1.7);
    const b = wave(tokens * n, 0.9);
    const results: Float32Array[] = [];
    for (const backend of backends) {
      const x = backend.allocate(a.length);
      const z = backend.allocate(b.length);
      const h = backend.allocate(m * m);
      const c = backend.allocate(m * n);
      backend.write(x, a);
      backend.write(z, b);
      backend.write(c, new Float32Array(m * n).fill(2));
      backend.gram(x, h, tokens, m);
      backend.gram(x, h, tokens, m);
      backend.crossGram(x, z, c, tokens, m, n);
      const [gram, cross] = [await backend.read(h), await backend.read(c)];
      const tolerance = 1e-6 * (tokens + 10);
      for (let i = 0; i < m; i++) {
        for (let j = 0; j < m; j++) {
          let sum = 0;
          for (let t = 0; t < tokens; t++) sum += a[t * m + i] * a[t * m + j];
          assert.ok(Math.abs(gram[i * m + j] - 2 * sum) < tolerance, `h[${i}][${j}]`);
          assert.equal(gram[i * m + j], gram[j * m + i]);
        }
        for (let j = 0; j < n; j++) {
          let sum = 2;
          for (let t = 0; t < tokens; t++) sum += a[t * m + i] * b[t * n + j];
          assert.ok(Math.abs(cross[i * n + j] - sum) < tolerance, `c[${i}][${j}]`);
        }
      }
      results.push(gram, cross);
    }
    assert.deepEqual(results.slice(0, 2), results.slice(2));
  });
}
