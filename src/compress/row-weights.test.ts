/** What weighted searches leave in each row, against what the plan expects of them. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { decodeTrellis } from "../codec/trellis/decode.js";
import { encodeTrellis } from "../codec/trellis/encode.js";
import { WasmRuntime } from "../compute/wasm/runtime.js";
import { Random } from "../random.js";
import { errorShares, rowWeights } from "./row-weights.js";

const runtime = await WasmRuntime.create({ threads: 1 });
after(() => runtime.close());

const ROWS = 512;
const COLUMNS = 96;
const random = new Random(3);
const weights = Float32Array.from({ length: ROWS * COLUMNS }, () => random.normal());
const costs = Float64Array.from({ length: ROWS }, () => Math.exp(random.normal()));

/** Mean squared error of each row. */
async function rowErrors(rate: 1 | 2 | 3, rowCosts?: Float32Array): Promise<Float64Array> {
  const input = { weights, rows: ROWS, columns: COLUMNS, rate, rowCosts };
  const decoded = decodeTrellis((await encodeTrellis(runtime, input)).coded);
  return Float64Array.from({ length: ROWS }, (_, r) => {
    let sum = 0;
    for (let i = r * COLUMNS; i < (r + 1) * COLUMNS; i++) sum += (weights[i] - decoded[i]) ** 2;
    return sum / COLUMNS;
  });
}

const total = (errors: Float64Array) => errors.reduce((sum, e, r) => sum + e * costs[r], 0);

for (const rate of [1, 2, 3] as const)
  test(`${rate} bits: weighted rows cost less, about as much less as the plan counts on`, async () => {
    const plain = total(await rowErrors(rate));
    const weighted = total(await rowErrors(rate, Float32Array.from(costs)));
    const shares = errorShares(costs);
    const expected = total(shares) / total(new Float64Array(ROWS).fill(1));
    assert.ok(expected < 0.75, `${expected}`);
    const left = weighted / plain;
    assert.ok(left < 0.85 && Math.abs(left - expected) < 0.15, `left ${left}, expected ${expected}`);
  });

test("a unit of the costs does not matter, nor do rows that cost nothing", async () => {
  const some = Float32Array.from(costs, (c, r) => (r % 7 === 0 ? 0 : c));
  const errors = await rowErrors(2, some);
  assert.deepEqual(
    await rowErrors(
      2,
      some.map((c) => 1024 * c),
    ),
    errors,
  );
  // Rows of 96 Gaussian weights have mean squares up to 1.5.
  assert.ok(errors.every((e) => e < 1.6));
  assert.deepEqual(await rowErrors(2, new Float32Array(ROWS)), await rowErrors(2, new Float32Array(ROWS)));
});

test("rules: costs of layers are tempered, rows of a vocabulary also count for the mean", () => {
  assert.deepEqual([...rowWeights(Float64Array.of(16, 81, 0), "layer")].map(Math.round), [8, 27, 0]);
  assert.deepEqual([...rowWeights(Float64Array.of(3, 0, 0), "vocabulary")], [4, 1, 1]);
  assert.deepEqual([...errorShares(Float64Array.of(0, 0))], [1, 1]);
  assert.deepEqual([...errorShares(Float64Array.of(5, 5))], [1, 1]);
});
