import assert from "node:assert/strict";
import { test } from "node:test";
import { DenseLinear } from "../compute/linear.js";
import { ReferenceBackend } from "../compute/reference/backend.js";
import { CorruptFileError } from "../errors.js";
import type { CodedLayer } from "./layer.js";
import { codedLinear, decodeLayer } from "./linear.js";
import { metaMatrix, tinyValues, trellisMatrix } from "./tiny-folder.test.util.js";

const TIERED: CodedLayer = {
  rows: 25,
  columns: 24,
  tiers: [
    { rows: [0, 9], matrix: trellisMatrix("first", 9, 24, { widths: [1] }) },
    { rows: [9, 16], matrix: metaMatrix("second", 7, 24, {}) },
    {
      rows: [16, 25],
      matrix: trellisMatrix("third", 9, 24, { codeBits: 3, interleave: 4, rotationSeed: 9 }),
    },
  ],
};
const LAYERS: readonly (readonly [name: string, layer: CodedLayer])[] = [
  ["trellis", trellisMatrix("trellis", 16, 24, {})],
  ["meta", metaMatrix("meta", 16, 24, {})],
  ["tiers of both", TIERED],
];

for (const [name, layer] of LAYERS)
  test(`a Linear of ${name} does what its decoded weights do`, async () => {
    const backend = new ReferenceBackend();
    const { rows, columns } = layer;
    const tokens = 70;
    const bias = tinyValues("bias", rows);
    const linear = codedLinear(backend, layer, bias);
    const dense = new DenseLinear(backend, rows, columns, decodeLayer(layer), bias);
    const close = (actual: Float32Array, expected: Float32Array) => {
      const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      actual.forEach((value, i) => {
        assert.ok(
          Math.abs(value - expected[i]) <= 1e-5 * largest,
          `element ${i}: ${value}, not ${expected[i]}`,
        );
      });
    };
    const x = backend.allocate(tokens * columns);
    backend.write(x, tinyValues("x", tokens * columns));
    const [y, expected] = [0, 0].map(() => backend.allocate(tokens * rows));
    linear.forward(x, y, tokens);
    dense.forward(x, expected, tokens);
    close(await backend.read(y), await backend.read(expected));

    const ids = Int32Array.of(0, 15, 8, rows - 1, 9);
    const [row, expectedRow] = [0, 0].map(() => backend.allocate(ids.length * columns));
    linear.gather(ids, row);
    dense.gather(ids, expectedRow);
    close(await backend.read(row), await backend.read(expectedRow));
    linear.free();
  });

test("impossible parameters name the layer", () => {
  const layer = trellisMatrix("bad", 8, 8, { interleave: 0 });
  assert.throws(
    () => codedLinear(new ReferenceBackend(), layer, undefined, "model.layers.3.mlp.up_proj"),
    (error: Error) =>
      error instanceof CorruptFileError && /^model\.layers\.3\.mlp\.up_proj: /.test(error.message),
  );
});
