// Writes hostile and broken PocketLLM folders, one an attack, each from a valid tiny folder with one thing
// wrong. folders.md lists them. Needs `npm run build`.
//
// As a program: node test/hostile/folders.mjs DIR
import { cp, mkdir, open, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { writeTinyAdapted, writeTinyFolder } from "../../dist/container/tiny-folder.test.util.js";
import { ADAPTER_ATTACKS } from "./adapter-attacks.mjs";
import {
  config,
  firstShard,
  flip,
  MANIFEST,
  manifest,
  parameters,
  readShard,
  rename,
  tensor,
} from "./folder-damage.mjs";

const Q = "model.layers.0.self_attn.q_proj";
const TRELLIS = "model.layers.1.self_attn.q_proj";
const DOWN = "model.layers.0.mlp.down_proj";
const NORM = "model.norm.weight";
const HEAD = "lm_head";

/**
 * Writes all into `dir`. Returns for each: `path`, `name`, `expect` (what the one line must say) and `when` it
 * must be refused: "open" or "read" (some layer or tensor).
 */
export async function makeHostileFolders(dir) {
  await mkdir(dir, { recursive: true });
  const valid = join(dir, "valid");
  await rm(valid, { recursive: true, force: true });
  await writeTinyFolder({ out: valid, shardBytes: 6000 });
  const adapted = join(dir, "adapted");
  await rm(adapted, { recursive: true, force: true });
  await writeTinyAdapted(valid, adapted);
  const cases = [];
  for (const [base, attacks] of [
    [valid, ATTACKS],
    [adapted, ADAPTER_ATTACKS],
  ]) {
    for (const [name, expect, attack, when = "open"] of attacks) {
      const path = join(dir, name);
      await rm(path, { recursive: true, force: true });
      await cp(base, path, { recursive: true });
      await attack(path);
      cases.push({ name, path, expect, when });
    }
    await rm(base, { recursive: true });
  }
  return cases;
}

/** [name, what the refusal must say, attack on a valid folder, when it must be refused] */
const ATTACKS = [
  ["no-manifest", /has no pocketllm\.json, so it is no PocketLLM folder/, (f) => rm(join(f, MANIFEST))],
  ["manifest-empty", /pocketllm\.json: is not valid JSON/, (f) => writeFile(join(f, MANIFEST), "")],
  [
    "manifest-not-json",
    /pocketllm\.json: is not valid JSON/,
    (f) => writeFile(join(f, MANIFEST), "PK\u0003\u0004"),
  ],
  ["manifest-not-an-object", /is not a JSON object/, (f) => writeFile(join(f, MANIFEST), "[1]\n")],
  [
    "manifest-truncated",
    /pocketllm\.json: is not valid JSON/,
    async (f) => {
      const bytes = await readFile(join(f, MANIFEST));
      await writeFile(join(f, MANIFEST), bytes.subarray(0, bytes.length / 2));
    },
  ],
  [
    "manifest-edited",
    /does not match its own SHA-256/,
    async (f) => {
      const text = await readFile(join(f, MANIFEST), "utf8");
      await writeFile(join(f, MANIFEST), text.replace('"d":4', '"d":8'));
    },
  ],
  [
    "manifest-of-65-megabytes",
    /has 68157440 bytes, more than the limit/,
    async (f) => {
      const file = await open(join(f, MANIFEST), "r+");
      await file.truncate(65 * 2 ** 20);
      await file.close();
    },
  ],
  [
    "manifest-duplicate-key",
    /"model\.norm\.weight" appears twice/,
    async (f) => {
      const text = await readFile(join(f, MANIFEST), "utf8");
      await writeFile(join(f, MANIFEST), text.replace("model.layers.1.input_layernorm.weight", NORM));
    },
  ],
  [
    "manifest-is-a-folder",
    /not a regular file/,
    async (f) => {
      await rm(join(f, MANIFEST));
      await mkdir(join(f, MANIFEST));
    },
  ],
  ["other-format", /format is not "pocketllm"/, manifest((m) => ({ ...m, format: "gguf" }))],
  [
    "future-version",
    /format version 2, this program reads version 1/,
    manifest((m) => ({ ...m, version: 2 })),
  ],
  ["version-as-text", /version is "1"/, manifest((m) => ({ ...m, version: "1" }))],
  ["no-version", /version is missing/, manifest(({ version: _, ...m }) => m)],
  ["no-files", /files is missing/, manifest(({ files: _, ...m }) => m)],
  ["no-tensors", /tensors is missing/, manifest(({ tensors: _, ...m }) => m)],
  ["no-layers", /layers is missing/, manifest(({ layers: _, ...m }) => m)],
  ["layers-as-array", /layers is not an object/, manifest((m) => ({ ...m, layers: [] }))],
  ["no-provenance", /provenance is missing/, manifest(({ provenance: _, ...m }) => m)],
  [
    "no-parameters",
    /q_proj"\]\.parameters is missing/,
    manifest(({ layers }) => {
      delete layers[Q].parameters;
    }),
  ],
  [
    "path-traversal",
    /\["\.\.\/outside\.json"\] is not a plain file name/,
    manifest((m) => ({ ...m, files: rename(m.files, "tokenizer.json", "../outside.json") })),
  ],
  [
    "absolute-path",
    /\["\/etc\/passwd"\] is not a plain file name/,
    manifest((m) => ({ ...m, files: rename(m.files, "tokenizer.json", "/etc/passwd") })),
  ],
  [
    "windows-path",
    /is not a plain file name/,
    manifest((m) => ({ ...m, files: rename(m.files, "tokenizer.json", "..\\outside.json") })),
  ],
  [
    "prototype-as-name",
    /is not a plain file name/,
    manifest((m) => ({ ...m, files: rename(m.files, "tokenizer.json", "__proto__") })),
  ],
  [
    "line-breaks-in-a-name",
    /a\\nb.* is not a usable tensor name/,
    manifest((m) => ({ ...m, tensors: rename(m.tensors, NORM, "a\nb\u001b[31m") })),
  ],
  [
    "absurd-file-size",
    /bytes is 1152921504606847000, expected a whole number/,
    manifest(({ files }) => {
      files["tokenizer.json"].bytes = 2 ** 60;
    }),
  ],
  [
    "absurd-tensor-shape",
    /bytes is 32, which is not F16 \[1099511627776, 1099511627776\]/,
    manifest(({ tensors }) => {
      tensors[NORM].shape = [2 ** 40, 2 ** 40];
    }),
  ],
  [
    "absurd-rank",
    /shape has 1000 elements, at most 8 are read/,
    manifest(({ tensors }) => {
      tensors[NORM].shape = Array(1000).fill(1);
    }),
  ],
  [
    "absurd-rows",
    /rows is 1099511627776, expected a whole number/,
    manifest(({ layers }) => {
      layers[Q].rows = 2 ** 40;
    }),
  ],
  [
    "fractional-rows",
    /rows is 16\.5/,
    manifest(({ layers }) => {
      layers[Q].rows = 16.5;
    }),
  ],
  [
    "parameters-nested-deeply",
    /parameters is nested too deeply/,
    parameters(Q, { deep: JSON.parse("[".repeat(30) + "]".repeat(30)) }),
  ],
  [
    "hash-not-hex",
    /sha256 has an unusable value/,
    manifest(({ files }) => {
      files["config.json"].sha256 = "f".repeat(63);
    }),
  ],
  [
    "unknown-method",
    /method is "aqlm", expected trellis or meta/,
    manifest(({ layers }) => {
      layers[Q].method = "aqlm";
    }),
  ],
  [
    "tensor-twice-in-a-layer",
    /tensors names a tensor twice/,
    manifest(({ layers }) => {
      layers[Q].tensors[1] = layers[Q].tensors[0];
    }),
  ],
  [
    "suffix-with-a-path",
    /unusable value "\.\.\/codes"/,
    manifest(({ layers }) => {
      layers[Q].tensors[0] = "../codes";
    }),
  ],
  [
    "layer-needs-unlisted-tensor",
    /needs tensor model\.layers\.0\.self_attn\.q_proj\.ghost/,
    manifest(({ layers }) => {
      layers[Q].tensors[0] = "ghost";
    }),
  ],
  [
    "tiers-overlap",
    /tiers\[1\]\.rows\[0\] is 7/,
    manifest(({ layers }) => {
      layers[HEAD].tiers[1].rows[0] = 7;
    }),
  ],
  [
    "tiers-leave-rows-out",
    /tiers end at row 8 of 32/,
    manifest(({ layers, tensors, ...m }) => {
      layers[HEAD].tiers.pop();
      return { ...m, layers, tensors };
    }),
  ],
  [
    "tier-of-other-columns",
    /columns is 8, the layer has 16/,
    manifest(({ layers }) => {
      layers[HEAD].tiers[0].columns = 8;
    }),
  ],
  [
    "tensor-in-no-weight-file",
    /file is not a safetensors file of the folder/,
    manifest(({ tensors }) => {
      tensors[NORM].file = "tokenizer.json";
    }),
  ],
  [
    "tensor-in-the-wrong-shard",
    /tensor "model\.norm\.weight" is not in pocketllm\.json/,
    manifest(({ tensors }) => {
      tensors[NORM].file = Object.values(tensors)[0].file;
    }),
  ],
  [
    "tensor-not-in-the-file",
    /has no tensor "model\.extra", but pocketllm\.json lists it/,
    manifest(({ tensors }) => {
      tensors["model.extra"] = tensors[NORM];
    }),
  ],
  [
    "tensor-of-another-type",
    /tensor "model\.norm\.weight" is F16 \[16\], pocketllm\.json says BF16 \[16\]/,
    manifest(({ tensors }) => {
      tensors[NORM].dtype = "BF16";
    }),
  ],
  ["missing-shard", /model-00001-of-0000\d\.safetensors is missing/, (f) => rm(firstShard(f))],
  [
    "shard-cut-short",
    /model-00001-of-0000\d\.safetensors: has \d+ bytes where pocketllm\.json says \d+/,
    async (f) => {
      const file = await open(firstShard(f), "r+");
      await file.truncate((await file.stat()).size - 1);
      await file.close();
    },
  ],
  ["missing-config", /config\.json is missing/, (f) => rm(join(f, "config.json"))],
  ["missing-tokenizer", /tokenizer\.json is missing/, (f) => rm(join(f, "tokenizer.json"))],
  [
    "config-not-listed",
    /has no config\.json in pocketllm\.json/,
    manifest(({ files }) => {
      delete files["config.json"];
    }),
  ],
  [
    "config-of-another-model",
    /q_proj\.weight" has the shape \[16, 16\] where the configuration asks for \[24, 16\]/,
    config({ head_dim: 12 }),
  ],
  [
    "config-of-more-layers",
    /"model\.layers\.2\.input_layernorm\.weight" is missing/,
    config({ num_hidden_layers: 3 }),
  ],
  ["config-of-fewer-layers", /is coded but no layer of the model/, config({ num_hidden_layers: 1 })],
  [
    "matrix-of-another-shape",
    /down_proj\.weight" has the shape \[24, 16\]/,
    manifest(({ layers }) => {
      Object.assign(layers[DOWN], { rows: 24, columns: 16 });
    }),
  ],
  [
    "flipped-byte-in-a-shard",
    /tensor "model\.embed_tokens\.codes" in model-00001-of-0000\d\.safetensors does not match its SHA-256/,
    async (f) => {
      const path = firstShard(f);
      const { header, dataOffset } = await readShard(path);
      await flip(path, dataOffset + header["model.embed_tokens.codes"].data_offsets[0] + 5);
    },
    "read",
  ],
  [
    "codes-of-the-wrong-size",
    /q_proj: tensor "codes" is U8 \[\d+\], not U8 \[\d+\]/,
    parameters(Q, { k: 32 }),
    "read",
  ],
  ["codebook-of-2-40-entries", /q_proj: k must be/, parameters(Q, { k: 2 ** 40 }), "read"],
  ["no-such-sub-vector", /q_proj: d must be 4 or 8, not 0/, parameters(Q, { d: 0 }), "read"],
  ["parameter-of-the-wrong-type", /q_proj: d must be 4 or 8/, parameters(Q, { d: "4" }), "read"],
  [
    "codebook-of-nan",
    /q_proj: tensor "codebook" has numbers that are not finite/,
    tensor(`${Q}.codebook`, (bytes) => bytes.writeUInt16LE(0x7e00, 4)),
    "read",
  ],
  [
    "trellis-codes-of-the-wrong-size",
    /layers\.1\.self_attn\.q_proj: tensor "codes" is U8 \[4,16\], not U8 \[8,16\]/,
    parameters(TRELLIS, { widths: [1] }),
    "read",
  ],
  [
    "codes-of-five-bits",
    /q_proj: codeBits must be 3 or 4, not 5/,
    parameters(TRELLIS, { codeBits: 5 }),
    "read",
  ],
  ["groups-of-no-columns", /q_proj: widths must be/, parameters(TRELLIS, { widths: [2, 0] }), "read"],
  ["no-groups", /q_proj: widths must be/, parameters(TRELLIS, { widths: [] }), "read"],
  ["a-million-widths", /q_proj: widths must be/, parameters(TRELLIS, { widths: Array(1e6).fill(2) }), "read"],
  [
    "interleave-of-nothing",
    /q_proj: interleave must be 1 to 16/,
    parameters(TRELLIS, { interleave: 0 }),
    "read",
  ],
  ["maps-of-another-version", /q_proj: maps must be "split"/, parameters(TRELLIS, { maps: "woven" }), "read"],
  ["fractional-interleave", /q_proj: interleave must be/, parameters(TRELLIS, { interleave: 1.5 }), "read"],
  [
    "seed-beyond-32-bits",
    /q_proj: rotationSeed must be/,
    parameters(TRELLIS, { rotationSeed: 2 ** 32 }),
    "read",
  ],
  [
    "missing-scales",
    /q_proj: has 2 tensors, not 3|"model\.layers\.1\.self_attn\.q_proj\.scales" is stored but no tensor/,
    manifest(({ layers }) => {
      layers[TRELLIS].tensors.pop();
    }),
  ],
  [
    "tables-of-nan",
    /q_proj: tensor "tables" has numbers that are not finite/,
    tensor(`${TRELLIS}.tables`, (bytes) => bytes.writeUInt16LE(0xfe00, 10)),
    "read",
  ],
  [
    "norm-of-infinity",
    /tensor "model\.norm\.weight" holds a value that is not finite/,
    tensor(NORM, (bytes) => bytes.writeUInt16LE(0x7c00, 4)),
    "read",
  ],
];

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , dir] = process.argv;
  if (!dir) {
    console.error("usage: node test/hostile/folders.mjs DIR");
    process.exit(2);
  }
  for (const { path } of await makeHostileFolders(dir)) console.log(path);
}
