/** What searches leave in each row when rows are weighted. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { decodeTrellis } from "../codec/trellis/decode.js";
import { encodeTrellis } from "../codec/trellis/encode.js";
import { WasmRuntime } from "../compute/wasm/runtime.js";
import { Random } from "../random.js";
import { layerWeights, vocabularyWeights } from "./row-weights.js";

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
  test(`${rate} bits: weighted rows cost less, most of what free bits a row could save`, async () => {
    const plain = total(await rowErrors(rate));
    const weighted = total(await rowErrors(rate, Float32Array.from(costs)));
    // With bits free to go to rows each would be left with an error inverse to its cost.
    const mean = costs.reduce((sum, c) => sum + c, 0) / ROWS;
    const ideal = Math.exp(costs.reduce((sum, c) => sum + Math.log(c), 0) / ROWS) / mean;
    const saved = (1 - weighted / plain) / (1 - ideal);
    assert.ok(saved > 0.5 && saved <= 1.02, `${saved} of what is possible`);
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

test("rows of a vocabulary also count for the mean, rows of layers are tempered, queries and keys are left", () => {
  assert.deepEqual([...vocabularyWeights(Float64Array.of(3, 0, 0))], [4, 1, 1]);
  assert.deepEqual([...layerWeights("up", Float64Array.of(16, 81, 0))!].map(Math.round), [8, 27, 0]);
  assert.equal(layerWeights("k", Float64Array.of(1, 2)), undefined);
});
