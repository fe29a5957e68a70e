// The attacks on Hugging Face folders. Each works on a copy of a valid folder; README.md lists them.
import { execFileSync } from "node:child_process";
import { cp, mkdir, open, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { makeTinyLlama } from "./tiny-llama.mjs";

/** The valid model that is attacked: options of makeTinyLlama. */
export const VALID = { layers: 1, hidden: 32, intermediate: 48, heads: 4, kvHeads: 2 };

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
  await makeTinyLlama(folder, { ...VALID, shards: 2 });
  await editJson(folder, "model.safetensors.index.json", ({ weight_map }) => edit(weight_map));
}

/** [name, what the refusal must say, attack on a valid folder, when it must be refused] */
export const FOLDERS = [
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
