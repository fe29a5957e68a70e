import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Backend } from "../../compute/backend.js";
import { ReferenceBackend } from "../../compute/reference/backend.js";
import { WasmBackend } from "../../compute/wasm/backend.js";
import { WasmRuntime } from "../../compute/wasm/runtime.js";
import { CorruptFileError } from "../../errors.js";
import { Random } from "../../random.js";
import type { CodedMatrix } from "../coded.js";
import type { Rate } from "./code.js";
import { decodeTrellis } from "./decode.js";
import { encodeTrellis } from "./encode.js";
import { TrellisLinear } from "./linear.js";

const ROWS = 60;
const COLUMNS = 56;
const TOKENS = 3;
const random = new Random(1);
const weights = Float32Array.from({ length: ROWS * COLUMNS }, () => random.normal());
const x = Float32Array.from({ length: TOKENS * COLUMNS }, () => random.normal());
const bias = Float32Array.from({ length: ROWS }, () => random.normal());

const matrices: { name: string; coded: CodedMatrix }[] = [];
let backends: Backend[];
before(async () => {
  const runtime = await WasmRuntime.create({ threads: 1 });
  for (const rate of [1, 1.33, 1.5, 1.6, 2, 2.67, 3, 4] as Rate[])
    for (const interleave of [1, 16])
      for (const tailBiting of [true, false]) {
        const input = { weights, rows: ROWS, columns: COLUMNS, rate, interleave, tailBiting, seed: 8 };
        const { coded } = await encodeTrellis(runtime, input);
        matrices.push({ name: `${rate} bits, interleave ${interleave}, tail-biting ${tailBiting}`, coded });
      }
  await runtime.close();
  backends = [new ReferenceBackend(), await WasmBackend.create({ threads: 2 })];
});
after(() => Promise.all(backends.map((backend) => backend.close())));

function largestDifference(a: Float32Array, b: Float32Array): number {
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
}

test("forward multiplies by the decoded weights, and adds the bias", async () => {
  for (const backend of backends) {
    for (const { name, coded } of matrices) {
      const decoded = decodeTrellis(coded);
      const linear = new TrellisLinear(backend, coded, bias);
      const [input, output] = [backend.allocate(x.length), backend.allocate(TOKENS * ROWS)];
      backend.write(input, x);
      // Several tokens after one, so that scratch buffers grow.
      for (const tokens of [1, TOKENS]) {
        linear.forward(input, output, tokens);
        const y = await backend.read(output, 0, tokens * ROWS);
        const expected = y.map((_, i) => {
          const [t, r] = [Math.floor(i / ROWS), i % ROWS];
          let sum = bias[r];
          for (let c = 0; c < COLUMNS; c++) sum += x[t * COLUMNS + c] * decoded[r * COLUMNS + c];
          return sum;
        });
        // The sums are of order 10; kernels may use tables of 13 bits.
        assert.ok(largestDifference(y, expected) < 0.05, `${backend.name}: ${name}, ${tokens} tokens`);
      }
      linear.free();
      backend.free(input);
      backend.free(output);
    }
  }
});

test("gather gives decoded rows, not rotated", async () => {
  const ids = Int32Array.of(0, 59, 17, 17, 1, 16);
  for (const backend of backends) {
    for (const { name, coded } of matrices) {
      const decoded = decodeTrellis(coded);
      const linear = new TrellisLinear(backend, coded);
      const output = backend.allocate(ids.length * COLUMNS);
      linear.gather(ids, output);
      const y = await backend.read(output);
      const expected = y.map((_, i) => decoded[ids[Math.floor(i / COLUMNS)] * COLUMNS + (i % COLUMNS)]);
      assert.ok(largestDifference(y, expected) < 1e-4, `${backend.name}: ${name}`);
      linear.free();
      backend.free(output);
    }
  }
});

test("bytes held are those of codes and tables, far below dense weights", () => {
  const { coded } = matrices[0];
  const linear = new TrellisLinear(backends[0], coded);
  assert.ok(linear.bytes < (4 * ROWS * COLUMNS) / 5, `${linear.bytes}`);
  linear.free();
});

test("a damaged matrix is refused before anything is allocated", () => {
  const { coded } = matrices[0];
  const damaged = { ...coded, parameters: { ...coded.parameters, widths: [9] } };
  assert.throws(() => new TrellisLinear(backends[0], damaged, undefined, "lm_head"), CorruptFileError);
});
