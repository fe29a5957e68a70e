import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Buffer } from "../../compute/backend.js";
import { WasmBackend } from "../../compute/wasm/backend.js";
import { CorruptFileError } from "../../errors.js";
import { Random } from "../../random.js";
import type { CodedMatrix } from "../coded.js";
import { createRotation, rotateRows } from "../rotation.js";
import { codeForRate, columnGroups, distinctWidths, RATES, type TrellisCode } from "./code.js";
import { decodeTrellis } from "./decode.js";
import { packTrellis } from "./stored.js";
import { TrainableTrellis } from "./trainable.js";

const backends = await Promise.all([1, 2, 3, 5].map((threads) => WasmBackend.create({ threads })));
const backend = backends[1];
after(() => Promise.all(backends.map((b) => b.close())));

/** A matrix of random codes, tables and scales: what decodes need not be good. */
function randomMatrix(code: TrellisCode, rows: number, columns: number, seed = 1): CodedMatrix {
  const random = new Random(seed);
  const groups = columnGroups(code.widths, columns).length;
  return packTrellis({
    rows,
    columns,
    code,
    seed: 77 + seed,
    codes: Uint8Array.from({ length: groups * rows }, () => random.below(2 ** code.codeBits)),
    tables: distinctWidths(code.widths).map((width) =>
      Float32Array.from({ length: 32 * width }, () => random.normal()),
    ),
    scales: Float32Array.from({ length: rows }, () => 0.2 + random.uniform()),
  });
}

/** Every rate and a pattern of three widths; 61 columns cut the last group of all that have wider ones. */
const CASES = [...RATES.map(codeForRate), { codeBits: 3 as const, widths: [1, 4, 3] }].flatMap((code, i) =>
  [
    [60, 56],
    [37, 61],
    [5, 61],
  ].map(([rows, columns], j) => {
    const full = {
      ...code,
      interleave: (i + j) % 2 === 0 ? 1 : 4,
      tailBiting: j !== 1,
      maps: "split" as const,
    };
    const name = `${code.codeBits} bits for ${code.widths} columns, ${rows} x ${columns}`;
    return { name, coded: randomMatrix(full, rows, columns) };
  }),
);
const MIXED: TrellisCode = { codeBits: 4, widths: [2, 1], interleave: 2, tailBiting: true, maps: "joint" };

function upload(data: Float32Array, to = backend): Buffer {
  const buffer = to.allocate(data.length);
  to.write(buffer, data);
  return buffer;
}

function normals(length: number, seed: number): Float32Array {
  const random = new Random(seed);
  return Float32Array.from({ length }, () => random.normal());
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  assert.equal(a.length, b.length);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
}

const dot = (a: Float32Array, b: Float32Array) => a.reduce((sum, x, i) => sum + x * b[i], 0);

for (const { name, coded } of CASES) {
  test(`${name}: decodes to the matrix's weights`, async () => {
    const matrix = new TrainableTrellis(backend, coded);
    const weight = upload(normals(coded.rows * coded.columns, 2));
    matrix.decode(weight);
    const difference = largestDifference(await backend.read(weight), decodeTrellis(coded));
    assert.ok(difference < 1e-5, `${difference}`);
    backend.free(weight);
    matrix.free();
  });

  test(`${name}: gradients are what a weighted sum of the weights gains by each scale and table entry`, async () => {
    const matrix = new TrainableTrellis(backend, coded);
    const data = normals(coded.rows * coded.columns, 3);
    const weight = backend.allocate(data.length);
    const value = async () => {
      matrix.update();
      matrix.decode(weight);
      return dot(data, await backend.read(weight));
    };
    const dWeight = upload(data);
    matrix.backward(dWeight);
    const start = await value();
    for (const [what, numbers, gradient] of [
      ["scales", matrix.scales, matrix.dScales],
      ["tables", matrix.tables, matrix.dTables],
    ] as const) {
      const norm = Math.sqrt(dot(gradient, gradient) / gradient.length);
      assert.ok(norm > 0.1, `${what}: ${norm}`);
      for (let i = 0; i < numbers.length; i++) {
        const kept = numbers[i];
        // Linear, so that the step may be as long as is good for f32.
        numbers[i] += 1;
        const gain = ((await value()) - start) / (numbers[i] - kept);
        numbers[i] = kept;
        assert.ok(Math.abs(gain - gradient[i]) < 2e-5 * norm, `${what}[${i}]: ${gradient[i]}, gains ${gain}`);
      }
    }
    for (const buffer of [weight, dWeight]) backend.free(buffer);
    matrix.free();
  });
}

test("refreshing scales the rows that were decoded, and decodes where that is not enough", async () => {
  const coded = randomMatrix(MIXED, 40, 61);
  const [kept, anew] = [new TrainableTrellis(backend, coded), new TrainableTrellis(backend, coded)];
  const [weight, expected] = [backend.allocate(43 * 61), backend.allocate(40 * 61)];
  const compare = async (most: number, what: string) => {
    for (const matrix of [kept, anew]) matrix.update();
    kept.refresh(weight, 3);
    anew.decode(expected);
    const found = (await backend.read(weight)).subarray(3 * 61);
    const difference = largestDifference(found, await backend.read(expected));
    assert.ok(difference <= most, `${what}: ${difference}`);
  };
  await compare(0, "nothing decoded yet");
  await compare(0, "nothing changed");
  const change = (to: (scale: number, row: number) => number) => {
    for (const matrix of [kept, anew])
      for (const [r, scale] of matrix.scales.entries()) matrix.scales[r] = to(scale, r);
  };
  change((scale, row) => scale * (1 + row / 50));
  // The rows before are another matrix's.
  backend.write(backend.view(weight, 0, 3 * 61), new Float32Array(3 * 61).fill(5));
  await compare(1e-5, "scales");
  assert.ok((await backend.read(weight)).subarray(0, 3 * 61).every((x) => x === 5));
  change((scale, row) => (row === 7 ? 0 : scale));
  await compare(1e-5, "a scale of 0");
  change((scale, row) => (row === 7 ? 1 : scale));
  await compare(0, "a scale from 0");
  for (const matrix of [kept, anew]) matrix.tables[5] += 0.5;
  await compare(0, "tables");
  for (const buffer of [weight, expected]) backend.free(buffer);
  for (const matrix of [kept, anew]) matrix.free();
});

test("gradients add up, and dWeight is left rotated", async () => {
  const coded = randomMatrix(MIXED, 40, 56);
  const matrix = new TrainableTrellis(backend, coded);
  const [first, second] = [4, 5].map((seed) => normals(40 * 56, seed));
  const [dFirst, dSecond] = [first, second].map((data) => upload(data));
  matrix.backward(dFirst);
  const [scales, tables] = [matrix.dScales.slice(), matrix.dTables.slice()];
  matrix.backward(dSecond);
  const both = new TrainableTrellis(backend, coded);
  const dBoth = upload(first.map((x, i) => x + second[i]));
  both.backward(dBoth);
  assert.ok(largestDifference(matrix.dScales, both.dScales) < 1e-5 * Math.sqrt(dot(scales, scales)));
  assert.ok(largestDifference(matrix.dTables, both.dTables) < 1e-5 * Math.sqrt(dot(tables, tables)));
  const rotated = first.slice();
  rotateRows(createRotation(56, coded.parameters["rotationSeed"] as number), rotated, 40);
  assert.ok(largestDifference(await backend.read(dFirst), rotated) < 1e-5);
  for (const buffer of [dFirst, dSecond, dBoth]) backend.free(buffer);
  matrix.free();
  both.free();
});

test("weights and gradients are bit for bit the same for any number of threads", async () => {
  // So large that every operation is shared out: compute/wasm/work.ts.
  for (const rows of [700, 7]) {
    const coded = randomMatrix(MIXED, rows, 122);
    const data = normals(rows * 122, 6);
    const results: Float32Array[][] = [];
    for (const threads of backends) {
      const matrix = new TrainableTrellis(threads, coded);
      const [weight, dWeight] = [threads.allocate(data.length), upload(data, threads)];
      matrix.decode(weight);
      matrix.backward(dWeight);
      results.push([await threads.read(weight), matrix.dScales, matrix.dTables]);
      matrix.free();
    }
    for (const result of results) assert.deepEqual(result, results[0]);
  }
});

test("the trained numbers take effect with update, and are stored rounded", async () => {
  const coded = randomMatrix({ ...MIXED, codeBits: 3, widths: [3, 1] }, 30, 50);
  const before = decodeTrellis(coded);
  const matrix = new TrainableTrellis(backend, coded);
  const weight = backend.allocate(30 * 50);
  const random = new Random(7);
  for (let r = 0; r < 30; r++) matrix.scales[r] *= Math.exp(0.3 * random.normal());
  for (let i = 0; i < matrix.tables.length; i++) matrix.tables[i] += 0.3 * random.normal();
  matrix.decode(weight);
  assert.ok(largestDifference(await backend.read(weight), before) < 1e-5, "before update");
  matrix.update();
  matrix.decode(weight);
  const trained = await backend.read(weight);
  assert.ok(largestDifference(trained, before) > 0.1);

  const stored = matrix.coded();
  const decoded = decodeTrellis(stored);
  const power = Math.sqrt(dot(trained, trained) / trained.length);
  const rounding = largestDifference(decoded, trained) / power;
  // Half a step of the grid of scales, and the rounding of tables and the grid's ends.
  const off = Math.log(Math.max(...matrix.scales) / Math.min(...matrix.scales)) / 254 / 2 + 2 ** -11;
  assert.ok(rounding > 1e-5 && rounding < 4 * (off + 2 ** -11), `${rounding}`);
  assert.deepEqual(decodeTrellis(coded), before, "the matrix it was made from");
  assert.deepEqual(stored.tensors.get("codes"), coded.tensors.get("codes"));

  // What was rounded once goes back to the same bytes.
  const again = new TrainableTrellis(backend, stored);
  for (const [i, x] of matrix.scales.entries())
    assert.ok(Math.abs(again.scales[i] - x) <= off * x, `scale ${i}`);
  assert.deepEqual(again.coded(), stored);
  again.decode(weight);
  assert.ok(largestDifference(await backend.read(weight), decoded) < 1e-5);
  backend.free(weight);
  matrix.free();
  again.free();
});

test("a part of a larger matrix is written and read at its rows, and nothing else is", async () => {
  const [rows, columns, first] = [21, 61, 5];
  const coded = randomMatrix(MIXED, rows, columns);
  const [matrix, part] = [0, 0].map(() => new TrainableTrellis(backend, coded));
  const data = normals(rows * columns, 8);
  const [from, to] = [first * columns, (first + rows) * columns];
  const surrounded = normals((first + rows + 3) * columns, 9);
  surrounded.set(data, from);
  const assertAround = (actual: Float32Array) => {
    assert.deepEqual(actual.subarray(0, from), surrounded.subarray(0, from));
    assert.deepEqual(actual.subarray(to), surrounded.subarray(to));
  };
  const [alone, whole] = [upload(data), upload(surrounded)];
  matrix.backward(alone);
  part.backward(whole, first);
  assert.deepEqual([part.dScales, part.dTables], [matrix.dScales, matrix.dTables]);
  assertAround(await backend.read(whole));
  matrix.decode(alone);
  part.decode(whole, first);
  const decoded = await backend.read(whole);
  assert.deepEqual(decoded.subarray(from, to), await backend.read(alone));
  assertAround(decoded);
  for (const wrong of [-1, 9]) {
    assert.throws(() => part.decode(whole, wrong), RangeError);
    assert.throws(() => part.backward(whole, wrong), RangeError);
  }
  for (const buffer of [alone, whole]) backend.free(buffer);
  matrix.free();
  part.free();
});

test("free gives all memory back, and a damaged matrix takes none", () => {
  const coded = randomMatrix(MIXED, 64, 56);
  const weight = backend.allocate(64 * 56);
  const use = () => {
    const matrix = new TrainableTrellis(backend, coded);
    matrix.decode(weight);
    matrix.backward(weight);
    matrix.free();
  };
  // The first time the backend's own working memory grows.
  use();
  const before = backend.runtime.bytesInUse;
  use();
  assert.equal(backend.runtime.bytesInUse, before);
  const damaged = { ...coded, parameters: { ...coded.parameters, widths: [9] } };
  const refused = (error: unknown) =>
    error instanceof CorruptFileError && error.message.startsWith("lm_head:");
  assert.throws(() => new TrainableTrellis(backend, damaged, "lm_head"), refused);
  assert.equal(backend.runtime.bytesInUse, before);
  backend.free(weight);
});
