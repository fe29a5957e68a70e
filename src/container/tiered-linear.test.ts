import assert from "node:assert/strict";
import { test } from "node:test";
import { DenseLinear } from "../compute/linear.js";
import { ReferenceBackend } from "../compute/reference/backend.js";
import { TieredLinear } from "./tiered-linear.js";
import { tinyValues } from "./tiny-folder.test.util.js";

const [ROWS, COLUMNS, CUT_1, CUT_2] = [11, 8, 2, 5];

function setUp() {
  const backend = new ReferenceBackend();
  const weights = tinyValues("weights", ROWS * COLUMNS);
  const tier = (start: number, end: number) => ({
    start,
    linear: new DenseLinear(backend, end - start, COLUMNS, weights.slice(start * COLUMNS, end * COLUMNS)),
  });
  const tiered = new TieredLinear(backend, [tier(0, CUT_1), tier(CUT_1, CUT_2), tier(CUT_2, ROWS)]);
  return { backend, tiered, whole: new DenseLinear(backend, ROWS, COLUMNS, weights) };
}

test("a tiered Linear multiplies like the whole matrix, for one token and for more than fit at once", async () => {
  const { backend, tiered, whole } = setUp();
  assert.deepEqual([tiered.outputs, tiered.inputs, tiered.bytes], [ROWS, COLUMNS, whole.bytes]);
  for (const tokens of [1, 5, 64, 150, 3]) {
    const x = backend.allocate(tokens * COLUMNS);
    backend.write(x, tinyValues(`x${tokens}`, tokens * COLUMNS));
    const [y, expected] = [backend.allocate(tokens * ROWS), backend.allocate(tokens * ROWS)];
    tiered.forward(x, y, tokens);
    whole.forward(x, expected, tokens);
    assert.deepEqual(await backend.read(y), await backend.read(expected), `${tokens} tokens`);
  }
});

test("its rows are those of the whole matrix, from one tier and from several", async () => {
  const { backend, tiered, whole } = setUp();
  for (const ids of [[10], [3, 4, 3], [0, 10, 5, 2, 1, 4, 10, 9], []]) {
    const [y, expected] = [0, 0].map(() => backend.allocate(Math.max(1, ids.length * COLUMNS)));
    tiered.gather(Int32Array.from(ids), y);
    if (ids.length > 0) whole.gather(Int32Array.from(ids), expected);
    assert.deepEqual(await backend.read(y), await backend.read(expected), ids.join());
  }
});
