import assert from "node:assert/strict";
import { test } from "node:test";
import { InputError } from "../errors.js";
import { createRotation, oddPart, rotateRows, unrotateRows } from "./rotation.js";

/** The matrix R with rotated x = x Rᵀ: its columns are the images of unit vectors. */
function images(columns: number, seed: number): Float32Array {
  const x = new Float32Array(columns * columns);
  for (let i = 0; i < columns; i++) x[i * columns + i] = 1;
  rotateRows(createRotation(columns, seed), x, columns);
  return x;
}

test("odd parts", () => {
  assert.deepEqual([1, 2, 64, 576, 1536, 11008, 7].map(oddPart), [1, 1, 1, 9, 3, 43, 7]);
});

for (const columns of [1, 5, 16, 24, 72]) {
  test(`orthogonal, and as defined: ${columns} columns`, () => {
    const x = images(columns, 3);
    for (let i = 0; i < columns; i++) {
      for (let j = 0; j < columns; j++) {
        let dot = 0;
        for (let k = 0; k < columns; k++) dot += x[i * columns + k] * x[j * columns + k];
        assert.ok(Math.abs(dot - (i === j ? 1 : 0)) < 1e-5);
      }
    }
    // Image of unit vector i, element k: sign[i] Q[k / h][i / h] H[k % h][i % h], H by Sylvester's rule.
    const { m, q, signs } = createRotation(columns, 3);
    const h = columns / m;
    const parity = (n: number) => [...n.toString(2)].filter((bit) => bit === "1").length % 2;
    for (let i = 0; i < columns; i++) {
      for (let k = 0; k < columns; k++) {
        const hadamard = (parity((k % h) & (i % h)) ? -1 : 1) / Math.sqrt(h);
        const expected = signs[i] * q[Math.floor(k / h) * m + Math.floor(i / h)] * hadamard;
        assert.ok(Math.abs(x[i * columns + k] - expected) < 1e-6);
      }
    }
  });
}

test("unrotateRows inverts rotateRows", () => {
  const rotation = createRotation(1536, 7);
  const x = Float32Array.from({ length: 2 * 1536 }, (_, i) => Math.sin(i * i));
  const y = x.slice();
  rotateRows(rotation, y, 2);
  assert.ok(y.some((v, i) => Math.abs(v - x[i]) > 0.1));
  unrotateRows(rotation, y, 2);
  assert.ok(y.every((v, i) => Math.abs(v - x[i]) < 1e-5));
});

test("signs follow the documented hash and the seed", () => {
  const { signs } = createRotation(4096, 0);
  const sum = signs.reduce((a, b) => a + b, 0);
  assert.ok(Math.abs(sum) < 4 * 64, `balanced: ${sum}`);
  assert.notDeepEqual(signs, createRotation(4096, 1).signs);
  // h(0, 0) and h(0, 1), worked by hand from the formula with 64-bit integers.
  const hash = (i: bigint) => {
    const mask = 0xffffffffn;
    let h = ((i + 1n) * 0x9e3779b9n) & mask;
    h = ((h ^ (h >> 16n)) * 0x85ebca6bn) & mask;
    h = ((h ^ (h >> 13n)) * 0xc2b2ae35n) & mask;
    return h ^ (h >> 16n);
  };
  for (let i = 0; i < 64; i++) assert.equal(signs[i], hash(BigInt(i)) >> 31n ? -1 : 1);
});

test("an odd part that would need a huge Q is refused", () => {
  assert.throws(() => createRotation(2 * 1031, 0), InputError);
});
