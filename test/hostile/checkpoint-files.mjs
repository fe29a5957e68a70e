// The attacks that are single files: GGUF, llama2.c and others. README.md lists them.
import { open, writeFile } from "node:fs/promises";
import { buildGguf, TENSOR, tinyMetadata, tinyTensors, VALUE } from "./gguf.mjs";

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

/** [name, what the refusal must say, writes the file, when it must be refused] */
export const FILES = [
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
