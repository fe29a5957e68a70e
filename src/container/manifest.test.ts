import assert from "node:assert/strict";
import { test } from "node:test";
import { sha256 } from "./disk.js";
import { canonicalJson } from "./json.js";
import { isFileName, type Manifest, parseManifest, writeManifest } from "./manifest.js";
import { TINY_PROVENANCE } from "./tiny-folder.test.util.js";

const hash = sha256("x");
const MANIFEST: Manifest = {
  version: 1,
  provenance: TINY_PROVENANCE,
  files: new Map([["model.safetensors", { bytes: 500, sha256: hash }]]),
  layers: new Map([
    [
      "a.q_proj",
      {
        method: "meta",
        rows: 4,
        columns: 8,
        parameters: { k: 16, "10": 1, "9": [1e-7, null] },
        tensors: ["codes"],
      },
    ],
    [
      "lm_head",
      {
        rows: 6,
        columns: 8,
        tiers: [
          {
            rows: [0, 2],
            entry: { method: "trellis", rows: 2, columns: 8, parameters: {}, tensors: ["codes"] },
          },
          { rows: [2, 6], entry: { method: "meta", rows: 4, columns: 8, parameters: {}, tensors: [] } },
        ],
      },
    ],
  ]),
  tensors: new Map(
    ["lm_head.0.codes", "a.q_proj.codes"].map((name) => [
      name,
      { file: "model.safetensors", dtype: "U8", shape: [4, 2], bytes: 8, sha256: hash },
    ]),
  ),
};

test("a manifest is parsed to what was written, and written to the same bytes", async () => {
  const bytes = await writeManifest(MANIFEST, sha256);
  const parsed = await parseManifest(bytes, "pocketllm.json", sha256);
  assert.deepEqual(parsed, MANIFEST);
  assert.deepEqual([...parsed.tensors.keys()], [...MANIFEST.tensors.keys()]);
  assert.deepEqual(await writeManifest(parsed, sha256), bytes);
});

test("a manifest with an adapter, too", async () => {
  const { files } = MANIFEST;
  const file = { bytes: 5, sha256: hash };
  const own = ["adapter_config.json", "adapter_model.safetensors"].map((name) => [name, file] as const);
  const adapted: Manifest = { ...MANIFEST, adapter: { bits: 4 }, files: new Map([...files, ...own]) };
  const bytes = await writeManifest(adapted, sha256);
  assert.deepEqual(await parseManifest(bytes, "pocketllm.json", sha256), adapted);
  const without = await writeManifest({ ...adapted, files }, sha256);
  await assert.rejects(
    parseManifest(without, "pocketllm.json", sha256),
    /adapter needs adapter_config\.json/,
  );
});

test("no byte of a manifest can change unnoticed", async () => {
  const bytes = await writeManifest(MANIFEST, sha256);
  for (let i = 0; i < bytes.length; i++) {
    const changed = bytes.slice();
    changed[i] ^= 1;
    await assert.rejects(parseManifest(changed, "pocketllm.json", sha256), `byte ${i}`);
    if (i > 0) await assert.rejects(parseManifest(bytes.subarray(0, i), "pocketllm.json", sha256));
  }
});

test("canonical JSON does not depend on the order of keys", () => {
  const value = { b: [1, "é", { y: null, x: false }], a: 1e21, "2": -0, "10": 0.1 };
  const reordered = { "10": 0.1, a: 1e21, "2": 0, b: [1, "é", { x: false, y: null }] };
  assert.equal(canonicalJson(value), canonicalJson(reordered));
  assert.deepEqual(JSON.parse(canonicalJson(value)), reordered);
  assert.throws(() => canonicalJson(Number.NaN), TypeError);
  assert.throws(() => canonicalJson({ a: Number.POSITIVE_INFINITY }), TypeError);
});

test("file names are plain names", () => {
  for (const name of ["config.json", "model-00001-of-00002.safetensors", "a_b.c-d", "LICENSE"])
    assert.ok(isFileName(name), name);
  for (const name of [
    "",
    ".",
    "..",
    ".git",
    "a/b",
    "a\\b",
    "a..b",
    "C:x",
    "a b",
    "a\n",
    "é",
    "pocketllm.json",
    "__proto__",
    "a".repeat(256),
  ])
    assert.ok(!isFileName(name), name);
});
