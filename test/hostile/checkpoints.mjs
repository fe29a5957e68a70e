// Writes hostile and broken models, one file or folder an attack, each from a valid tiny model with one thing
// wrong. README.md lists them. Needs `npm run build`.
//
// As a program: node test/hostile/checkpoints.mjs DIR
import { execFileSync } from "node:child_process";
import { cp, mkdir, open, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { buildGguf, TENSOR, tinyMetadata, tinyTensors, VALUE } from "./gguf.mjs";
import { makeTinyLlama } from "./tiny-llama.mjs";

/**
 * Writes all into `dir`. Returns for each: `path`, `name`, `expect` (what the one line must say) and `when` it
 * must be refused: "open", "read" (some weight) or "tokenizer".
 */
export async function makeHostileCheckpoints(dir) {
  await mkdir(dir, { recursive: true });
  const valid = join(dir, "valid");
  await makeTinyLlama(valid, { layers: 1, hidden: 32, intermediate: 48, heads: 4, kvHeads: 2 });
  const cases = [];
  for (const [name, expect, attack, when = "open"] of [...FOLDERS, ...FILES]) {
    const path = join(dir, name);
    await rm(path, { recursive: true, force: true });
    if (name.includes(".")) {
      await attack(path);
    } else {
      await cp(valid, path, { recursive: true });
      await attack(path);
    }
    cases.push({ name, path, expect, when });
  }
  await rm(valid, { recursive: true });
  return cases;
}

/** Rewrites the JSON file of a folder. */
async function editJson(folder, file, edit) {
  const path = join(folder, file);
  const value = JSON.parse(await readFile(path, "utf8"));
  await writeFile(path, JSON.stringify(edit(value) ?? value));
}

const config = (change) => (folder) => editJson(folder, "config.json", (value) => ({ ...value, ...change }));

/** Rewrites model.safetensors: `edit` changes the parsed header and may return other data bytes. */
async function editSafetensors(folder, edit) {
  const path = join(folder, "model.safetensors");
  const bytes = await readFile(path);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = JSON.parse(bytes.toString("utf8", 8, 8 + length));
  const data = bytes.subarray(8 + length);
  const result = (await edit(header, data)) ?? data;
  await writeSafetensorsText(path, JSON.stringify(header), result);
}

async function writeSafetensorsText(path, json, data) {
  const text = Buffer.from(json);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  await writeFile(path, Buffer.concat([length, text, data]));
}

/** Moves every tensor that begins at or after `from` by `bytes`. */
function shift(header, from, bytes) {
  for (const entry of Object.values(header))
    if (entry.data_offsets?.[0] >= from) entry.data_offsets = entry.data_offsets.map((at) => at + bytes);
}

const NORM = "model.norm.weight";
const Q = "model.layers.0.self_attn.q_proj.weight";

/** Changes one value of a tensor. */
const poison = (value) => (folder) =>
  editSafetensors(folder, (header, data) => {
    data.writeFloatLE(value, header[Q].data_offsets[0] + 4 * 33);
  });

async function removeTensor(folder, name) {
  await editSafetensors(folder, (header, data) => {
    const [begin, end] = header[name].data_offsets;
    delete header[name];
    shift(header, end, begin - end);
    return Buffer.concat([data.subarray(0, begin), data.subarray(end)]);
  });
}

async function addTensor(folder, name) {
  await editSafetensors(folder, (header, data) => {
    header[name] = { dtype: "F32", shape: [2], data_offsets: [data.length, data.length + 8] };
    return Buffer.concat([data, Buffer.alloc(8)]);
  });
}

/** Splits the folder into two shards with an index and lets `edit` change the index's weight_map. */
async function sharded(folder, edit) {
  await rm(join(folder, "model.safetensors"));
  await makeTinyLlama(folder, { layers: 1, hidden: 32, intermediate: 48, heads: 4, kvHeads: 2, shards: 2 });
  await editJson(folder, "model.safetensors.index.json", ({ weight_map }) => edit(weight_map));
}

/** [name, what the refusal must say, attack on a valid folder, when it must be refused] */
const FOLDERS = [
  [
    "truncated-safetensors",
    /claims bytes .*cut short/,
    async (f) => {
      const handle = await open(join(f, "model.safetensors"), "r+");
      await handle.truncate((await handle.stat()).size - 100);
      await handle.close();
    },
  ],
  ["empty-safetensors", /has 0 bytes/, (f) => writeFile(join(f, "model.safetensors"), "")],
  [
    "header-of-2-60-bytes",
    /claims a header of 1152921504606846976 bytes/,
    async (f) => {
      const handle = await open(join(f, "model.safetensors"), "r+");
      const length = Buffer.alloc(8);
      length.writeBigUInt64LE(2n ** 60n);
      await handle.write(length, 0, 8, 0);
      await handle.close();
    },
  ],
  [
    "header-not-json",
    /not valid JSON/,
    (f) => writeSafetensorsText(join(f, "model.safetensors"), '{"a":', Buffer.alloc(0)),
  ],
  [
    "overlapping-tensors",
    /overlap/,
    (f) =>
      editSafetensors(f, (header, data) => {
        const [begin] = header[NORM].data_offsets;
        shift(header, begin, -64);
        return data.subarray(0, data.length - 64);
      }),
  ],
  [
    "hole-between-tensors",
    /64 bytes before tensor .* belong to no tensor/,
    (f) =>
      editSafetensors(f, (header, data) => {
        const [begin] = header[NORM].data_offsets;
        shift(header, begin, 64);
        return Buffer.concat([data, Buffer.alloc(64)]);
      }),
  ],
  [
    "bytes-after-the-last-tensor",
    /last 64 bytes belong to no tensor/,
    (f) => editSafetensors(f, (_, data) => Buffer.concat([data, Buffer.alloc(64)])),
  ],
  [
    "size-not-shape-times-dtype",
    /"model\.norm\.weight" has 128 bytes, but F16 of shape \[32\] takes 64/,
    (f) =>
      editSafetensors(f, (header) => {
        header[NORM].dtype = "F16";
      }),
  ],
  [
    "shape-product-overflow",
    /"model\.norm\.weight" .* takes Infinity/,
    (f) =>
      editSafetensors(f, (header) => {
        header[NORM].shape = [2 ** 40, 2 ** 40, 2 ** 40];
      }),
  ],
  [
    "unknown-dtype",
    /"model\.norm\.weight" has the type "F8_E4M3"/,
    (f) =>
      editSafetensors(f, (header) => {
        header[NORM].dtype = "F8_E4M3";
      }),
  ],
  ["line-breaks-in-a-name", /"a\\nb\\u001b/, (f) => addTensor(f, "a\nb\u001b[31m")],
  [
    "duplicate-tensor",
    /"model\.norm\.weight" appears twice/,
    async (f) => {
      const path = join(f, "model.safetensors");
      const bytes = await readFile(path);
      const length = Number(bytes.readBigUInt64LE(0));
      const json = bytes.toString("utf8", 8, 8 + length).trim();
      await writeSafetensorsText(
        path,
        json.replace("model.layers.0.input_layernorm.weight", NORM),
        bytes.subarray(8 + length),
      );
    },
  ],
  ["nan-weights", /q_proj\.weight" holds NaN at \[1, 1\]/, poison(Number.NaN), "read"],
  [
    "infinite-weights",
    /q_proj\.weight" holds -Infinity at \[1, 1\]/,
    poison(Number.NEGATIVE_INFINITY),
    "read",
  ],
  ["missing-tensor", /q_proj\.weight" is missing/, (f) => removeTensor(f, Q)],
  [
    "missing-head",
    /"lm_head\.weight" is missing and tie_word_embeddings is not set/,
    (f) => removeTensor(f, "lm_head.weight"),
  ],
  [
    "extra-tensor",
    /"model\.layers\.0\.self_attn\.sinks" is not a part of a llama model/,
    (f) => addTensor(f, "model.layers.0.self_attn.sinks"),
  ],
  [
    "wrong-shape",
    /q_proj\.weight" has the shape \[16, 64\] where the configuration asks for \[32, 32\]/,
    (f) =>
      editSafetensors(f, (header) => {
        header[Q].shape = [16, 64];
      }),
  ],
  [
    "integer-weights",
    /"model\.norm\.weight" holds I32/,
    (f) =>
      editSafetensors(f, (header) => {
        header[NORM].dtype = "I32";
      }),
  ],
  [
    "weights-are-a-folder",
    /not a regular file/,
    async (f) => {
      await rm(join(f, "model.safetensors"));
      await mkdir(join(f, "model.safetensors"));
    },
  ],
  [
    "pickle-only",
    /pytorch_model\.bin is a Python pickle/,
    async (f) => {
      await rm(join(f, "model.safetensors"));
      await writeFile(join(f, "pytorch_model.bin"), "PK");
    },
  ],
  ["no-weights", /has no model\.safetensors/, (f) => rm(join(f, "model.safetensors"))],
  ["no-config", /has no config\.json/, (f) => rm(join(f, "config.json"))],
  ["already-compressed", /is a PocketLLM folder/, (f) => writeFile(join(f, "pocketllm.json"), "{}")],
  [
    "config-not-json",
    /config\.json: is not valid JSON/,
    (f) => writeFile(join(f, "config.json"), "{'a': 1}"),
  ],
  [
    "config-too-long",
    /config\.json: has \d+ bytes, more than the limit/,
    config({ padding: " ".repeat(2 ** 20) }),
  ],
  [
    "config-deeply-nested",
    /config\.json: is nested deeper than 64 levels/,
    (f) => writeFile(join(f, "config.json"), `{"a":${"[".repeat(250000)}${"]".repeat(250000)}}`),
  ],
  [
    "duplicate-config-key",
    /"hidden_size" appears twice/,
    async (f) => {
      const path = join(f, "config.json");
      const text = await readFile(path, "utf8");
      await writeFile(path, text.replace("{", '{"hidden_size": 64,'));
    },
  ],
  ["unknown-architecture", /the architecture "gpt2" is not supported/, config({ model_type: "gpt2" })],
  [
    "unknown-class",
    /class "LlamaForSequenceClassification" is not supported/,
    config({ architectures: ["LlamaForSequenceClassification"] }),
  ],
  ["mixture-of-experts", /the architecture "mixtral" is not supported/, config({ model_type: "mixtral" })],
  [
    "unknown-rope-scaling",
    /rope scaling of type "yarn" is not supported/,
    config({ rope_scaling: { rope_type: "yarn", factor: 4 } }),
  ],
  ["unknown-activation", /hidden_act "gelu" is not supported/, config({ hidden_act: "gelu" })],
  [
    "quantised-bitsandbytes",
    /quantised already \("bitsandbytes"\)/,
    config({ quantization_config: { quant_method: "bitsandbytes", load_in_4bit: true } }),
  ],
  [
    "quantised-gptq",
    /q_proj\.qweight".*a quantised model cannot be read/,
    async (f) => {
      await removeTensor(f, Q);
      await addTensor(f, Q.replace("weight", "qweight"));
    },
  ],
  [
    "heads-that-do-not-divide",
    /head_dim is 10\.6/,
    config({ num_attention_heads: 3, num_key_value_heads: 3 }),
  ],
  [
    "kv-heads-that-do-not-divide",
    /not a multiple of num_key_value_heads 3/,
    config({ num_key_value_heads: 3 }),
  ],
  ["absurd-hidden-size", /hidden_size is 1099511627776/, config({ hidden_size: 2 ** 40 })],
  [
    "absurd-layers",
    /"model\.layers\.1\.input_layernorm\.weight" is missing/,
    config({ num_hidden_layers: 1024 }),
  ],
  ["negative-vocabulary", /vocab_size is -1/, config({ vocab_size: -1 })],
  ["number-as-text", /num_hidden_layers is "1"/, config({ num_hidden_layers: "1" })],
  ["eos-outside-vocabulary", /eos_token_id 320 is not a token/, config({ eos_token_id: [256, 320] })],
  [
    "index-names-missing-shard",
    /model-00003-of-00002\.safetensors: is missing/,
    (f) =>
      sharded(f, (map) => {
        map[Q] = "model-00003-of-00002.safetensors";
      }),
  ],
  [
    "index-path-traversal",
    /"\.\.\/outside\.safetensors", which is not the name/,
    (f) =>
      sharded(f, (map) => {
        map[Q] = "../outside.safetensors";
      }),
  ],
  [
    "index-names-wrong-shard",
    /model-00002-of-00002\.safetensors: tensor ".*q_proj\.weight" is missing/,
    (f) =>
      sharded(f, (map) => {
        map[Q] = "model-00002-of-00002.safetensors";
      }),
  ],
  [
    "index-without-map",
    /has no weight_map/,
    async (f) => {
      await rm(join(f, "model.safetensors"));
      await writeFile(join(f, "model.safetensors.index.json"), "{}");
    },
  ],
  [
    "tensor-in-two-shards",
    /is in .* too/,
    async (f) => {
      await sharded(f, (map) => {
        const names = Object.keys(map).filter((name) => map[name].startsWith("model-00001"));
        const shard = (i) => `model-0000${i === 0 ? 2 : 1}-of-00002.safetensors`;
        return { weight_map: Object.fromEntries(names.map((name, i) => [name, shard(i)])) };
      });
      await cp(join(f, "model-00001-of-00002.safetensors"), join(f, "model-00002-of-00002.safetensors"));
    },
  ],
  [
    "tokenizer-not-json",
    /tokenizer\.json: is not valid JSON/,
    (f) => writeFile(join(f, "tokenizer.json"), "x"),
    "tokenizer",
  ],
  [
    "tokenizer-only-sentencepiece",
    /has tokenizer\.model but no tokenizer\.json/,
    async (f) => {
      await rm(join(f, "tokenizer.json"));
      await writeFile(join(f, "tokenizer.model"), "x");
    },
    "tokenizer",
  ],
  ...(process.platform === "win32"
    ? []
    : [
        [
          "weights-are-a-pipe",
          /not a regular file/,
          async (f) => {
            await rm(join(f, "model.safetensors"));
            execFileSync("mkfifo", [join(f, "model.safetensors")]);
          },
        ],
      ]),
];

/** A GGUF file from the valid tiny model after `edit`. */
const gguf = (edit) => async (path) => {
  const parts = { metadata: tinyMetadata(), tensors: tinyTensors() };
  await writeFile(path, buildGguf({ ...parts, ...edit(parts) }));
};

const u64 = (value) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
};
const u32 = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};

/** 7 int32, then `bytes` zero bytes. */
const llama2c = (fields, bytes) => (path) =>
  writeFile(path, Buffer.concat([Buffer.from(Int32Array.from(fields).buffer), Buffer.alloc(bytes)]));
/** dim 8, hidden 16, 1 layer, 2 heads, 1 K/V head, 300 tokens (shared head), context 4: its weights in bytes. */
const LLAMA2C = [8, 16, 1, 2, 1, 300, 4];
const LLAMA2C_BYTES = 4 * (300 * 8 + 8 + 64 + 32 + 32 + 64 + 8 + 3 * 128 + 8 + 4 * 4);

const tokenizerMetadata = (pre, merges) => [
  ["tokenizer.ggml.model", "gpt2"],
  ["tokenizer.ggml.pre", pre],
  ["tokenizer.ggml.tokens", Array.from({ length: 40 }, (_, i) => `t${i}`)],
  ["tokenizer.ggml.merges", merges],
];

const FILES = [
  [
    "truncated.gguf",
    /claims .* bytes from byte .*cut short/,
    async (path) => {
      await gguf(() => ({}))(path);
      const handle = await open(path, "r+");
      await handle.truncate((await handle.stat()).size - 1000);
      await handle.close();
    },
  ],
  [
    "cut-in-the-header.gguf",
    /ends inside its header|its \d+ bytes can hold/,
    async (path) => {
      await gguf(() => ({}))(path);
      const handle = await open(path, "r+");
      await handle.truncate(700);
      await handle.close();
    },
  ],
  ["not-gguf.gguf", /does not begin with "GGUF"/, (path) => writeFile(path, "GGML".repeat(10))],
  ["future-version.gguf", /GGUF version 99 is not supported/, gguf(() => ({ version: 99 }))],
  ["big-endian.gguf", /big-endian GGUF is not supported/, gguf(() => ({ version: 0x03000000 }))],
  [
    "absurd-tensor-count.gguf",
    /claims 1152921504606846976 tensors/,
    gguf(() => ({ tensorCount: 2n ** 60n })),
  ],
  ["absurd-key-count.gguf", /claims 4294967296 metadata keys/, gguf(() => ({ keyCount: 2 ** 32 }))],
  [
    "absurd-string-length.gguf",
    /claims 1152921504606846976 bytes for the value of "general\.name"/,
    gguf(({ metadata }) => ({
      metadata: [...metadata, ["general.name", { raw: Buffer.concat([u32(VALUE.string), u64(2n ** 60n)]) }]],
    })),
  ],
  [
    "absurd-array-length.gguf",
    /claims 9223372036854775808 items for "tokenizer\.ggml\.scores"/,
    gguf(({ metadata }) => ({
      metadata: [
        ...metadata,
        ["tokenizer.ggml.scores", { raw: Buffer.concat([u32(VALUE.array), u32(VALUE.f32), u64(2n ** 63n)]) }],
      ],
    })),
  ],
  [
    "arrays-of-arrays.gguf",
    /"a" holds arrays of arrays/,
    gguf(({ metadata }) => ({
      metadata: [...metadata, ["a", { raw: Buffer.concat([u32(VALUE.array), u32(VALUE.array), u64(1n)]) }]],
    })),
  ],
  [
    "unknown-value-type.gguf",
    /"a" has the unknown type 77/,
    gguf(({ metadata }) => ({
      metadata: [...metadata, ["a", { raw: u32(77) }]],
    })),
  ],
  [
    "duplicate-key.gguf",
    /"general\.architecture" appears twice/,
    gguf(({ metadata }) => ({ metadata: [...metadata, metadata[0]] })),
  ],
  [
    "bad-alignment.gguf",
    /general\.alignment is 33/,
    gguf(({ metadata }) => ({ metadata: [...metadata, ["general.alignment", 33]] })),
  ],
  [
    "unknown-tensor-type.gguf",
    /"blk\.0\.attn_q\.weight" has the type IQ2_XXS/,
    gguf(({ tensors }) => {
      tensors[2].type = TENSOR.IQ2_XXS;
    }),
  ],
  [
    "absurd-tensor-type.gguf",
    /"blk\.0\.attn_q\.weight" has the type number 4000000000/,
    gguf(({ tensors }) => {
      tensors[2].type = 4e9;
    }),
  ],
  [
    "absurd-rank.gguf",
    /"blk\.0\.attn_q\.weight" has 1000 dimensions/,
    gguf(({ tensors }) => {
      tensors[2].dims = Array(1000).fill(1);
    }),
  ],
  [
    "absurd-dimensions.gguf",
    /"blk\.0\.attn_q\.weight" claims .* bytes/,
    gguf(({ tensors }) => {
      tensors[2].dims = [2n ** 63n, 2n ** 63n];
    }),
  ],
  [
    "tensor-outside-the-file.gguf",
    /"output_norm\.weight" claims 128 bytes from byte/,
    gguf(({ tensors }) => {
      tensors.at(-1).offset = 2 ** 40;
    }),
  ],
  [
    "overlapping-tensors.gguf",
    /overlap/,
    gguf(({ tensors }) => {
      tensors[2].offset = 32;
    }),
  ],
  [
    "duplicate-tensor.gguf",
    /"blk\.0\.attn_q\.weight" appears twice/,
    gguf(({ tensors }) => ({ tensors: [...tensors, tensors[2]] })),
  ],
  [
    "missing-tensor.gguf",
    /q_proj\.weight" is missing/,
    gguf(({ tensors }) => ({ tensors: tensors.toSpliced(2, 1) })),
  ],
  [
    "wrong-shape.gguf",
    /has the shape \[16, 64\]/,
    gguf(({ tensors }) => {
      tensors[2].dims = [64, 16];
    }),
  ],
  [
    "rows-not-whole-blocks.gguf",
    /has rows of 16 weights, not a multiple of Q8_0's 32/,
    gguf(({ tensors }) => {
      Object.assign(tensors[2], { type: TENSOR.Q8_0, dims: [16, 64] });
    }),
  ],
  [
    "unknown-architecture.gguf",
    /the architecture "falcon" is not supported/,
    gguf(() => ({ metadata: tinyMetadata("falcon") })),
  ],
  [
    "split.gguf",
    /is one of 3 parts/,
    gguf(({ metadata }) => ({ metadata: [...metadata, ["split.count", 3]] })),
  ],
  [
    "number-as-text.gguf",
    /"llama\.block_count" is "one", expected a number/,
    gguf(({ metadata }) => {
      metadata[1][1] = "one";
    }),
  ],
  [
    "odd-rope-factors.gguf",
    /factors of rope_freqs\.weight are not those of Llama 3/,
    gguf(({ tensors }) => ({
      tensors: [
        ...tensors,
        {
          name: "rope_freqs.weight",
          dims: [4],
          type: TENSOR.F32,
          data: Buffer.from(Float32Array.of(1, 2, 3, 4).buffer),
        },
      ],
    })),
  ],
  [
    "nan-scale.gguf",
    /q_proj\.weight" holds NaN/,
    gguf(({ tensors }) => {
      Object.assign(tensors[2], { type: TENSOR.Q8_0, data: Buffer.alloc(32 * 34, 0xff) });
    }),
    "read",
  ],
  [
    "unknown-pre-tokenizer.gguf",
    /the pre-tokenizer "superbpe" is not supported/,
    gguf(({ metadata }) => ({
      metadata: [...metadata, ...tokenizerMetadata("superbpe", ["t1 t2"])],
    })),
    "tokenizer",
  ],
  [
    "merges-of-no-tokens.gguf",
    /merge 0 \("x y"\) is not a pair of tokens/,
    gguf(({ metadata }) => ({
      metadata: [...metadata, ...tokenizerMetadata("gpt-2", ["x y"])],
    })),
    "tokenizer",
  ],
  [
    "negative-header.bin",
    /is no llama2\.c file: its header reads -8/,
    llama2c([-8, ...LLAMA2C.slice(1)], 1000),
  ],
  ["zero-heads.bin", /is no llama2\.c file/, llama2c([8, 16, 1, 0, 1, 300, 4], LLAMA2C_BYTES)],
  ["huge-header.bin", /hidden_size is 2147483647/, llama2c([2 ** 31 - 1, 16, 1, 1, 1, 300, 4], 1000)],
  ["truncated.bin", /its header asks for \d+ bytes and it has/, llama2c(LLAMA2C, LLAMA2C_BYTES - 4)],
  ["trailing-bytes.bin", /its header asks for \d+ bytes and it has/, llama2c(LLAMA2C, LLAMA2C_BYTES + 4)],
  ["too-short.bin", /too few bytes/, (path) => writeFile(path, "abc")],
  [
    "newer-llama2c.bin",
    /llama2\.c file of version 2; only version 0/,
    (path) => writeFile(path, Buffer.concat([u32(0x616b3432), u32(2), Buffer.alloc(256)])),
  ],
  ["pickle.bin", /is a Python pickle/, (path) => writeFile(path, "PK\u0003\u0004 archive/data.pkl")],
  ["unknown.xyz", /is no model file that is known/, (path) => writeFile(path, "hello")],
];

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.length !== 3) {
    console.error("usage: node test/hostile/checkpoints.mjs DIR");
    process.exit(2);
  }
  for (const { path } of await makeHostileCheckpoints(process.argv[2])) console.log(path);
}
