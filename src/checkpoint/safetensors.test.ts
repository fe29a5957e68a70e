import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { CorruptFileError, InputError } from "../errors.js";
import { f32ToBytes } from "../tensor/dtype.js";
import { blobSource, bytesSource } from "./byte-source.js";
import { FileSource } from "./file-source.js";
import { buildSafetensorsHeader, MAX_HEADER_BYTES, SafetensorsFile } from "./safetensors.js";
import { writeSafetensors } from "./safetensors-write.js";

/** A file from a header as text and data bytes. */
function file(header: string, dataBytes: number): Uint8Array {
  const json = new TextEncoder().encode(header);
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

const entry = (dtype: string, shape: number[], begin: number, end: number) =>
  JSON.stringify({ dtype, shape, data_offsets: [begin, end] });

describe("safetensors reading", () => {
  const refused: [string, Uint8Array, RegExp][] = [
    ["empty file", new Uint8Array(3), /too few/],
    ["header past the end", file("{}", 0).subarray(0, 9), /claims a header of 2 bytes/],
    ["not JSON", file("{", 0), /not valid JSON/],
    ["an array", file("[]", 0), /not a JSON object/],
    ["trailing bytes", file("{}", 4), /last 4 bytes belong to no tensor/],
    [
      "duplicate name",
      file(`{"a":${entry("U8", [1], 0, 1)},"\\u0061":${entry("U8", [1], 0, 1)}}`, 1),
      /"a" appears twice/,
    ],
    [
      "duplicate field",
      file(`{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}`, 1),
      /"dtype" appears twice/,
    ],
    [
      "overlap",
      file(`{"a":${entry("U8", [4], 0, 4)},"b":${entry("U8", [4], 2, 6)}}`, 6),
      /"a" and "b" overlap/,
    ],
    [
      "hole",
      file(`{"a":${entry("U8", [2], 0, 2)},"b":${entry("U8", [2], 4, 6)}}`, 6),
      /2 bytes before tensor "b"/,
    ],
    ["outside", file(`{"a":${entry("U8", [9], 0, 9)}}`, 4), /"a" claims bytes 0 to 9 of 4/],
    ["backwards", file(`{"a":${entry("U8", [0], 4, 0)}}`, 4), /"a" claims bytes 4 to 0/],
    [
      "wrong size",
      file(`{"a":${entry("F32", [2], 0, 4)}}`, 4),
      /"a" has 4 bytes, but F32 of shape \[2\] takes 8/,
    ],
    ["product overflow", file(`{"a":${entry("F32", [2 ** 31, 2 ** 31, 4], 0, 0)}}`, 0), /takes Infinity/],
    ["negative size", file(`{"a":${entry("U8", [-1], 0, 1)}}`, 1), /no valid shape/],
    ["fractional offset", file(`{"a":${entry("U8", [1], 0.5, 1.5)}}`, 2), /no valid data_offsets/],
    ["unknown dtype", file(`{"a":${entry("F8_E4M3", [1], 0, 1)}}`, 1), /"a" has the type "F8_E4M3"/],
    ["inherited dtype", file(`{"a":${entry("toString", [1], 0, 1)}}`, 1), /has the type "toString"/],
    ["rank", file(`{"a":${entry("U8", Array(9).fill(1), 0, 1)}}`, 1), /no valid shape/],
    ["metadata", file(`{"__metadata__":{"a":1}}`, 0), /entry "a" is not a string/],
    ["line break in a name", file(`{"a\\nb":${entry("U8", [2], 0, 1)}}`, 1), /"a\\nb"/],
  ];
  for (const [what, bytes, message] of refused)
    test(`refuses: ${what}`, async () => {
      await assert.rejects(SafetensorsFile.open(bytesSource(bytes, "x.safetensors")), (error: Error) => {
        assert.ok(error instanceof CorruptFileError);
        assert.match(error.message, message);
        assert.match(error.message, /^x\.safetensors/);
        assert.doesNotMatch(error.message, /\n/);
        return true;
      });
    });

  test("a header claiming 2^60 bytes is refused without reading or allocating it", async () => {
    const source = {
      name: "x",
      size: 2 ** 40,
      async read(_offset: number, length: number) {
        assert.equal(length, 8);
        const bytes = new Uint8Array(8);
        new DataView(bytes.buffer).setBigUint64(0, claimed, true);
        return bytes;
      },
    };
    let claimed = 2n ** 60n;
    await assert.rejects(SafetensorsFile.open(source), /claims a header of 1152921504606846976 bytes/);
    claimed = BigInt(MAX_HEADER_BYTES + 1);
    await assert.rejects(SafetensorsFile.open(source), /more than the limit/);
  });

  test("reads every float type, empty tensors, scalars and metadata, from bytes and from a Blob", async () => {
    const values = Float32Array.of(1, -2.5, 0, 0.15625);
    const parts = (["F32", "F16", "BF16"] as const).map((dtype) => ({
      dtype,
      data: f32ToBytes(values, dtype),
    }));
    const header = buildSafetensorsHeader(
      [
        { name: "empty", dtype: "I64", shape: [0, 2 ** 40] },
        ...parts.map(({ dtype }) => ({ name: dtype, dtype, shape: [2, 2] })),
        { name: "scalar", dtype: "F32", shape: [] },
      ],
      { format: "pt" },
    );
    const blob = new Blob([
      header,
      ...parts.map((p) => p.data),
      f32ToBytes(Float32Array.of(7), "F32"),
    ] as BlobPart[]);
    for (const source of [
      bytesSource(new Uint8Array(await blob.arrayBuffer()), "x"),
      blobSource(blob, "x"),
    ]) {
      const opened = await SafetensorsFile.open(source);
      assert.equal(opened.header.metadata.get("format"), "pt");
      for (const { dtype } of parts) assert.deepEqual(await opened.readF32(dtype), values);
      assert.deepEqual(await opened.readF32("scalar"), Float32Array.of(7));
      assert.equal((await opened.readBytes("empty")).length, 0);
      await assert.rejects(opened.readF32("empty"), /"empty" holds I64/);
      await assert.rejects(opened.readBytes("absent"), /no tensor "absent"/);
    }
  });
});

test("the header is padded with spaces to a multiple of 8 and refuses a name given twice", () => {
  for (let length = 1; length <= 16; length++) {
    const header = buildSafetensorsHeader([{ name: "n".repeat(length), dtype: "U8", shape: [1] }]);
    assert.equal(header.length % 8, 0);
    assert.equal(Number(new DataView(header.buffer).getBigUint64(0, true)), header.length - 8);
    assert.match(new TextDecoder().decode(header.subarray(8)), /\} {0,7}$/);
  }
  const twice = { name: "a", dtype: "U8", shape: [1] } as const;
  assert.throws(() => buildSafetensorsHeader([twice, twice]), RangeError);
});

describe("safetensors writing", () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "pocketllm-safetensors-"));
  });
  after(() => rm(folder, { recursive: true }));

  test("streams tensors one at a time, in pieces, and reports size and hash", async () => {
    const path = join(folder, "model.safetensors");
    const big = Float32Array.from({ length: 3 * 2 ** 20 }, (_, i) => (i * 7919) % 1013);
    const order: string[] = [];
    const written = await writeSafetensors({
      path,
      metadata: { format: "pt" },
      tensors: [
        {
          name: "big",
          dtype: "F16",
          shape: [3, 2 ** 20],
          async *data() {
            order.push("big");
            for (let row = 0; row < 3; row++)
              yield f32ToBytes(big.subarray(row * 2 ** 20, (row + 1) * 2 ** 20), "F16");
          },
        },
        {
          name: "codes",
          dtype: "U8",
          shape: [3],
          data: () => {
            order.push("codes");
            return Uint8Array.of(1, 2, 3);
          },
        },
      ],
    });
    assert.deepEqual(order, ["big", "codes"]);
    const bytes = await readFile(path);
    assert.equal(written.bytes, bytes.length);
    assert.equal(written.sha256, createHash("sha256").update(bytes).digest("hex"));
    const source = await FileSource.open(path);
    const opened = await SafetensorsFile.open(source);
    assert.deepEqual(await opened.readF32("big"), big);
    assert.deepEqual(await opened.readBytes("codes"), Uint8Array.of(1, 2, 3));
    await source.close();
  });

  test("a failure or an abort leaves the old file and no temporary one", async () => {
    const path = join(folder, "old", "model.safetensors");
    await assert.rejects(writeSafetensors({ path, tensors: [] }), { code: "ENOENT" });
    const kept = join(folder, "kept.safetensors");
    await writeFile(kept, "old");
    const abort = new AbortController();
    const tensor = (bytes: number) => ({
      name: "a",
      dtype: "U8" as const,
      shape: [2],
      data: () => new Uint8Array(bytes),
    });
    await assert.rejects(writeSafetensors({ path: kept, tensors: [tensor(3)] }), /gave 3 bytes/);
    abort.abort(new InputError("interrupted"));
    await assert.rejects(
      writeSafetensors({ path: kept, tensors: [tensor(2)], signal: abort.signal }),
      /interrupted/,
    );
    assert.equal(await readFile(kept, "utf8"), "old");
    assert.deepEqual(
      (await readdir(folder)).filter((name) => name.endsWith(".partial")),
      [],
    );
  });
});
