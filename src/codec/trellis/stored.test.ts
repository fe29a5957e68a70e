import assert from "node:assert/strict";
import { test } from "node:test";
import { CorruptFileError } from "../../errors.js";
import { f32ToBytes } from "../../tensor/dtype.js";
import type { CodedMatrix, JsonValue, StoredTensor } from "../coded.js";
import type { TrellisCode } from "./code.js";
import { distinctWidths } from "./code.js";
import { decodeTrellis } from "./decode.js";
import { defaultTables } from "./default-tables.js";
import { packTrellis, pairedCodes, trellisTensors, validateTrellis } from "./stored.js";

const CODE: TrellisCode = { codeBits: 4, widths: [2], interleave: 1, tailBiting: true, maps: "split" };

function sample(code: TrellisCode, rows: number, columns: number): { coded: CodedMatrix; codes: Uint8Array } {
  const { codes: tensor } = trellisTensors(rows, columns, code);
  const groups = code.codeBits === 3 ? tensor.shape[0] : Math.ceil(columns / code.widths[0]);
  const codes = Uint8Array.from({ length: groups * rows }, (_, i) => (i * 7 + (i >> 3)) % 2 ** code.codeBits);
  const tables = distinctWidths(code.widths).map((width) => defaultTables(code.codeBits, width).tables);
  const scales = new Float32Array(rows).fill(0.5);
  return { coded: packTrellis({ rows, columns, code, seed: 9, codes, tables, scales }), codes };
}

for (const [code, columns] of [
  [CODE, 8],
  [CODE, 9],
  [{ ...CODE, widths: [3] }, 14],
  [{ ...CODE, widths: [4], maps: "joint" as const }, 14],
  [{ ...CODE, codeBits: 3 as const }, 10],
] as const) {
  test(`codes come back: ${code.codeBits} bits, widths ${code.widths}, ${columns} columns`, () => {
    const rows = 13;
    const { coded, codes } = sample(code, rows, columns);
    const shape = validateTrellis(coded);
    assert.deepEqual(shape, { code, seed: 9 });
    const pairs = pairedCodes(coded, code);
    for (let i = 0; i < codes.length; i++) {
      const group = Math.floor(i / rows);
      assert.equal((pairs[(group >> 1) * rows + (i % rows)] >> (4 * (group & 1))) & 15, codes[i]);
    }
    assert.equal(decodeTrellis(coded).length, rows * columns);
  });
}

test("three-bit codes take 3 bytes for 8 rows", () => {
  assert.deepEqual(trellisTensors(17, 10, { codeBits: 3, widths: [2] }).codes.shape, [5, 9]);
  assert.deepEqual(trellisTensors(17, 10, { codeBits: 4, widths: [2, 1] }).codes.shape, [4, 17]);
});

const { coded: good } = sample(CODE, 13, 8);
const withParameters = (parameters: { [key: string]: JsonValue }): CodedMatrix => ({
  ...good,
  parameters: { ...good.parameters, ...parameters },
});
const withTensor = (suffix: string, change: Partial<StoredTensor>): CodedMatrix => ({
  ...good,
  tensors: new Map(good.tensors).set(suffix, { ...good.tensors.get(suffix)!, ...change }),
});
/** Scales whose rows all have code 1, from and to these halves. */
const ends = (least: number, greatest: number) =>
  Uint8Array.from({ length: 17 }, (_, i) => [least & 255, least >> 8, greatest & 255, greatest >> 8][i] ?? 1);
const halfScales = (value: number) =>
  withTensor("scales", {
    dtype: "F16",
    shape: [13],
    data: f32ToBytes(new Float32Array(13).fill(value), "F16"),
  });
const without = (suffix: string): CodedMatrix => {
  const tensors = new Map(good.tensors);
  tensors.delete(suffix);
  return { ...good, tensors };
};

test("scales in halves are read too", () => {
  assert.deepEqual(decodeTrellis(halfScales(0.5)), decodeTrellis(good));
});

for (const [what, coded, message] of [
  ["another method", { ...good, method: "meta" as const }, /coded by "meta"/],
  ["no rows", { ...good, rows: 0 }, /cannot be 0 x 8/],
  ["fractional columns", { ...good, columns: 7.5 }, /cannot be 13 x 7.5/],
  ["rows beyond every model", { ...good, rows: 2 ** 40 }, /cannot be/],
  ["columns with a huge odd part", { ...good, columns: 1_000_003 }, /cannot be rotated/],
  ["5-bit codes", withParameters({ codeBits: 5 }), /codeBits must be 3 or 4, not 5/],
  ["codeBits as text", withParameters({ codeBits: "4" }), /codeBits must be 3 or 4, not "4"/],
  ["no widths", withParameters({ widths: [] }), /widths must be/],
  ["a width of 0, which would never end", withParameters({ widths: [2, 0] }), /widths must be/],
  ["a width of 5", withParameters({ widths: [5] }), /widths must be/],
  ["widths without end", withParameters({ widths: new Array(100_000).fill(2) }), /widths must be/],
  ["widths that are no list", withParameters({ widths: { length: 1 } }), /widths must be/],
  ["interleave 0", withParameters({ interleave: 0 }), /interleave must be/],
  ["interleave -1", withParameters({ interleave: -1 }), /interleave must be/],
  ["tailBiting as a number", withParameters({ tailBiting: 1 }), /tailBiting must be/],
  ["maps by another name", withParameters({ maps: "joint" }), /maps must be "split", not "joint"/],
  ["a negative seed", withParameters({ rotationSeed: -1 }), /rotationSeed must be/],
  ["missing codes", without("codes"), /has 2 tensors, not 3/],
  ["a tensor too many", withTensor("extra", good.tensors.get("scales")!), /has 4 tensors, not 3/],
  ["codes of another type", withTensor("codes", { dtype: "I8" }), /"codes" is I8/],
  ["codes of another shape", withTensor("codes", { shape: [13, 2] }), /not U8 \[2,13\]/],
  ["codes cut short", withTensor("codes", { data: new Uint8Array(25) }), /has 25 bytes, not 26/],
  ["fewer rows than codes", { ...good, rows: 12 }, /"codes" is U8/],
  ["tables that are infinite", withTensor("tables", { data: new Uint8Array(128).fill(0x7c) }), /not finite/],
  [
    "scales that are not finite",
    withTensor("scales", { data: new Uint8Array(17).fill(0xff) }),
    /goes from NaN/,
  ],
  ["scales from 1 down to 0.5", withTensor("scales", { data: ends(0x3c00, 0x3800) }), /goes from 1 to 0\.5/],
  ["scales from 0", withTensor("scales", { data: ends(0, 0x3c00) }), /goes from 0 to 1/],
  ["scales of no size", withTensor("scales", { data: ends(0, 0) }), /goes from 0 to 0/],
  [
    "scales from a negative number",
    withTensor("scales", { data: ends(0xbc00, 0x3c00) }),
    /goes from -1 to 1/,
  ],
  ["scales cut short", withTensor("scales", { data: new Uint8Array(16) }), /has 16 bytes, not 17/],
  ["scales in halves, not a number", halfScales(Number.NaN), /not finite/],
] as const) {
  test(`refuses ${what}`, () => {
    const refused = (error: unknown) =>
      error instanceof CorruptFileError &&
      message.test(error.message) &&
      error.message.startsWith("model.layers.0.x: ") &&
      !error.message.includes("\n");
    assert.throws(() => validateTrellis(coded as CodedMatrix, "model.layers.0.x"), refused);
    assert.throws(() => decodeTrellis(coded as CodedMatrix, "model.layers.0.x"), refused);
  });
}
