import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { WasmRuntime } from "../../compute/wasm/runtime.js";
import { InputError } from "../../errors.js";
import { Random } from "../../random.js";
import { type CodedMatrix, codedBytes } from "../coded.js";
import { codeForRate, type Rate } from "./code.js";
import { decodeTrellis } from "./decode.js";
import { defaultTables } from "./default-tables.js";
import { encodeTrellis } from "./encode.js";
import { FactoredHessian } from "./hessian.js";

let runtime: WasmRuntime;
before(async () => {
  runtime = await WasmRuntime.create({ threads: 2 });
});
after(() => runtime.close());

/** `spread` is the standard deviation of the logarithm of the rows' scales. */
function matrix(rows: number, columns: number, spread = 0.5): Float32Array {
  const random = new Random(1);
  const out = new Float32Array(rows * columns);
  for (let r = 0; r < rows; r++) {
    const scale = 0.02 * Math.exp(spread * random.normal());
    for (let c = 0; c < columns; c++) out[r * columns + c] = scale * random.normal();
  }
  return out;
}

/** E[x xᵀ] of inputs that are mixtures of a few strong directions and noise. */
function correlated(columns: number, seed = 2): Float32Array {
  const random = new Random(seed);
  const directions = 24;
  const mixture = Float64Array.from(
    { length: columns * directions },
    (_, i) => random.normal() * Math.exp(-(i % directions) / 8),
  );
  const out = new Float32Array(columns * columns);
  for (let i = 0; i < columns; i++) {
    for (let j = 0; j < columns; j++) {
      let sum = i === j ? 0.05 : 0;
      for (let k = 0; k < directions; k++) sum += mixture[i * directions + k] * mixture[j * directions + k];
      out[i * columns + j] = sum;
    }
  }
  return out;
}

/** tr(E H Eᵀ) / tr(W H Wᵀ); H the identity if absent. */
function relativeError(weights: Float32Array, coded: CodedMatrix, hessian?: Float32Array): number {
  const { rows, columns } = coded;
  const decoded = decodeTrellis(coded);
  let error = 0;
  let total = 0;
  for (let r = 0; r < rows; r++) {
    for (let i = 0; i < columns; i++) {
      const w = weights[r * columns + i];
      const e = w - decoded[r * columns + i];
      if (!hessian) {
        error += e * e;
        total += w * w;
        continue;
      }
      for (let j = 0; j < columns; j++) {
        const h = hessian[i * columns + j];
        error += e * h * (weights[r * columns + j] - decoded[r * columns + j]);
        total += w * h * weights[r * columns + j];
      }
    }
  }
  return error / total;
}

const close = (a: number, b: number, tolerance: number) =>
  assert.ok(Math.abs(a - b) <= tolerance * Math.abs(b), `${a} against ${b}`);

for (const rate of [1, 1.33, 1.5, 2, 3, 4] as const) {
  test(`${rate} bits: the distortion and the bytes that the code promises`, async () => {
    const [rows, columns] = [160, 384];
    const weights = matrix(rows, columns, 0);
    const { coded, squaredError } = await encodeTrellis(runtime, { weights, rows, columns, rate });
    const { codeBits, widths } = codeForRate(rate);
    close(squaredError, defaultTables(codeBits, widths[0]).distortion, 0.02);
    close(squaredError, relativeError(weights, coded), 1e-4);
    const bits = (8 * codedBytes(coded) - 8 * (4 + rows) - 16 * 32 * widths[0]) / weights.length;
    close(bits, codeBits / widths[0], 1e-9);
  });
}

test("reported errors are those of the decoded weights, whatever the shape", async () => {
  for (const [rows, columns, rate, interleave, tailBiting] of [
    [37, 56, 1.5, 1, true],
    [37, 56, 1.5, 16, true],
    [64, 40, 1.6, 16, false],
    [33, 20, 2.67, 1, true],
    [2, 24, 2, 1, true],
    [1, 8, 1, 16, true],
    [50, 3, 1, 1, true],
  ] as const) {
    const weights = matrix(rows, columns);
    const hessian = correlated(columns);
    const input = { weights, rows, columns, rate, interleave, tailBiting, seed: 5 };
    for (const h of [undefined, hessian]) {
      const { coded, squaredError, proxyError } = await encodeTrellis(runtime, { ...input, hessian: h });
      close(squaredError, relativeError(weights, coded), 1e-3);
      close(proxyError, relativeError(weights, coded, h), 1e-3);
    }
  }
  assert.equal(runtime.bytesInUse, 0);
});

test("error feedback lowers the proxy error at every width of groups", async () => {
  const [rows, columns] = [96, 144];
  const weights = matrix(rows, columns);
  const hessian = correlated(columns);
  for (const rate of [1, 1.5, 1.6, 2, 3] as Rate[]) {
    const plain = await encodeTrellis(runtime, { weights, rows, columns, rate });
    const fed = await encodeTrellis(runtime, { weights, rows, columns, rate, hessian });
    assert.ok(fed.proxyError < 0.5 * relativeError(weights, plain.coded, hessian));
  }
});

test("the bytes do not depend on threads, on what runs beside, or on sharing the factor", async () => {
  const [rows, columns] = [100, 96];
  const weights = matrix(rows, columns);
  const hessian = correlated(columns);
  const bytes = ({ coded }: { coded: CodedMatrix }) => coded.tensors.get("codes")!.data;
  const input = { weights, rows, columns, rate: 1.5, interleave: 16, seed: 3 } as const;
  const single = await WasmRuntime.create({ threads: 1 });
  try {
    const expected = bytes(await encodeTrellis(single, { ...input, hessian }));
    const factor = await FactoredHessian.create(runtime, { hessian, columns, seed: 3 });
    const side = await Promise.all([
      encodeTrellis(runtime, { ...input, hessian }),
      encodeTrellis(runtime, { ...input, hessian: factor }),
      encodeTrellis(runtime, { ...input, hessian: factor }),
    ]);
    factor.free();
    for (const result of side) assert.deepEqual(bytes(result), expected);
    assert.notDeepEqual(bytes(await encodeTrellis(single, { ...input, hessian, seed: 4 })), expected);
  } finally {
    await single.close();
  }
  assert.equal(runtime.bytesInUse, 0);
});

test("rows coded in several chunks decode as one matrix", async () => {
  const [rows, columns] = [2500, 24];
  const weights = matrix(rows, columns, 0);
  for (const [rate, interleave] of [
    [2, 1],
    [1.5, 16],
  ] as const) {
    const input = { weights, rows, columns, rate, interleave, chunkWeights: 1024 * columns };
    const { coded, squaredError } = await encodeTrellis(runtime, input);
    assert.equal(coded.parameters["tailBiting"], false);
    close(squaredError, relativeError(weights, coded), 1e-4);
    const whole = await encodeTrellis(runtime, { ...input, chunkWeights: undefined });
    // A sequence goes on from the state that the chunk before left: a loss that counts when it is short.
    close(squaredError, whole.squaredError, interleave === 1 ? 0.01 : 0.09);
  }
});

test("rows of larger scale are coded more closely", async () => {
  const [rows, columns] = [160, 384];
  const errors = [];
  for (const spread of [0, 0.5]) {
    const weights = matrix(rows, columns, spread);
    errors.push((await encodeTrellis(runtime, { weights, rows, columns, rate: 2 })).squaredError);
  }
  assert.ok(errors[1] < 0.8 * errors[0], `${errors}`);
});

test("rows of zeros and inputs that never fire", async () => {
  const [rows, columns] = [40, 32];
  const weights = matrix(rows, columns);
  weights.fill(0, 5 * columns, 9 * columns);
  const hessian = correlated(columns);
  for (let i = 0; i < columns; i++) hessian[3 * columns + i] = hessian[i * columns + 3] = 0;
  const { coded } = await encodeTrellis(runtime, { weights, rows, columns, rate: 2, hessian });
  const decoded = decodeTrellis(coded);
  assert.ok(decoded.every(Number.isFinite));
  assert.ok(decoded.subarray(5 * columns, 9 * columns).every((x) => x === 0));
  const dead = await encodeTrellis(runtime, {
    weights,
    rows,
    columns,
    rate: 2,
    hessian: new Float32Array(columns * columns),
  });
  assert.ok(dead.squaredError < 0.09);
  const nothing = await encodeTrellis(runtime, {
    weights: new Float32Array(64),
    rows: 8,
    columns: 8,
    rate: 2,
  });
  assert.ok(decodeTrellis(nothing.coded).every((x) => x === 0));
});

test("weights and Hessians that are not finite are refused, and leave nothing behind", async () => {
  const [rows, columns] = [40, 32];
  const bad = matrix(rows, columns);
  bad[100] = Number.NaN;
  await assert.rejects(encodeTrellis(runtime, { weights: bad, rows, columns, rate: 2 }), InputError);
  const hessian = correlated(columns);
  hessian[5] = hessian[5 * columns] = Number.POSITIVE_INFINITY;
  const weights = matrix(rows, columns);
  await assert.rejects(encodeTrellis(runtime, { weights, rows, columns, rate: 2, hessian }), InputError);
  const indefinite = correlated(columns).map((x, i) => (i % (columns + 1) === 0 ? x : 100 * x));
  await assert.rejects(
    encodeTrellis(runtime, { weights, rows, columns, rate: 2, hessian: indefinite }),
    InputError,
  );
  assert.equal(runtime.bytesInUse, 0);
});

test("an abort stops the job and frees its memory; progress reaches the end", async () => {
  const [rows, columns] = [2000, 512];
  const weights = matrix(rows, columns);
  const controller = new AbortController();
  const aborted = encodeTrellis(runtime, { weights, rows, columns, rate: 1, signal: controller.signal });
  setTimeout(() => controller.abort(), 20);
  await assert.rejects(aborted, { name: "AbortError" });
  assert.equal(runtime.bytesInUse, 0);
  const seen: number[] = [];
  await encodeTrellis(runtime, {
    weights: weights.subarray(0, 64 * columns),
    rows: 64,
    columns,
    rate: 2,
    onProgress: ({ done, total }) => seen.push(done / total),
  });
  assert.equal(seen.at(-1), 1);
});
