// Generates a Llama model with seeded random weights as a Hugging Face folder: for tests that need a model but
// not its sense, and, since weights are streamed, for checkpoints of a large model's shapes. Needs `npm run build`.
//
// As a program: node test/hostile/tiny-llama.mjs DIR [--layers 2] [--hidden 64] [--intermediate 160] [--heads 4]
//   [--kv-heads 2] [--vocab 320] [--context 256] [--dtype F32|F16|BF16] [--seed 0] [--shards 1] [--tied]
// The shapes of Llama-2-7B: --hidden 4096 --intermediate 11008 --heads 32 --kv-heads 32 --vocab 32000 --dtype F16
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { expectedTensors, parseModelConfig, writeSafetensors } from "../../dist/checkpoint/index.js";
import { f32ToBytes } from "../../dist/tensor/dtype.js";

/** Bytes that a tensor gives at a time. */
const CHUNK_ELEMENTS = 2 ** 20;

/**
 * Writes config.json, weights, tokenizer.json and tokenizer_config.json into `dir` (made if absent).
 * The tokenizer knows the 256 bytes and `<|endoftext|>` (id 256), so that `vocab` is at least 257; further ids
 * have no text. Returns the parsed configuration.
 */
export async function makeTinyLlama(dir, options = {}) {
  const {
    layers = 2,
    hidden = 64,
    intermediate = 160,
    heads = 4,
    kvHeads = 2,
    vocab = 320,
    context = 256,
    dtype = "F32",
    seed = 0,
    shards = 1,
    tied = false,
    /** Further fields of config.json. */
    config: more = {},
  } = options;
  const config = {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    vocab_size: vocab,
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: heads,
    num_key_value_heads: kvHeads,
    max_position_embeddings: context,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    tie_word_embeddings: tied,
    bos_token_id: 256,
    eos_token_id: 256,
    torch_dtype: { F32: "float32", F16: "float16", BF16: "bfloat16" }[dtype],
    ...more,
  };
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, "config.json"), JSON.stringify(config, null, 2));
  await writeTokenizer(dir);
  const tensors = [...expectedTensors(parseModelConfig(config, "config.json"))].map(([name, shape]) => ({
    name,
    dtype,
    shape,
    data: () => randomTensor(name, shape, dtype, seed),
  }));
  if (shards === 1) await writeSafetensors({ path: join(dir, "model.safetensors"), tensors });
  else await writeShards(dir, tensors, shards);
  return config;
}

async function writeShards(dir, tensors, shards) {
  const weight_map = {};
  const perShard = Math.ceil(tensors.length / shards);
  const number = (n) => String(n).padStart(5, "0");
  for (let i = 0; i < shards; i++) {
    const file = `model-${number(i + 1)}-of-${number(shards)}.safetensors`;
    const part = tensors.slice(i * perShard, (i + 1) * perShard);
    await writeSafetensors({ path: join(dir, file), tensors: part });
    for (const { name } of part) weight_map[name] = file;
  }
  await writeFile(join(dir, "model.safetensors.index.json"), JSON.stringify({ metadata: {}, weight_map }));
}

/**
 * Matrices: bell-shaped (the sum of four bytes), standard deviation 1 / sqrt(inputs), 0.02 for embeddings.
 * Norms: around 1. The same for a seed, a name and a shape, whatever else the model has.
 */
function* randomTensor(name, shape, dtype, seed) {
  const norm = name.includes("norm");
  const deviation = norm ? 0.05 : name.includes("embed") ? 0.02 : 1 / Math.sqrt(shape.at(-1));
  // All 1021 values that can occur, converted once: 7B weights in F16 take a minute instead of several.
  const values = Float32Array.from(
    { length: 1021 },
    (_, i) => ((i - 510) / 147.8) * deviation + (norm ? 1 : 0),
  );
  const Bits = dtype === "F32" ? Uint32Array : Uint16Array;
  const bits = new Bits(f32ToBytes(values, dtype).buffer);
  const count = shape.reduce((a, b) => a * b, 1);
  let state = hashName(name) ^ (seed * 0x9e3779b9) || 1;
  for (let done = 0; done < count; done += CHUNK_ELEMENTS) {
    const chunk = new Bits(Math.min(CHUNK_ELEMENTS, count - done));
    for (let i = 0; i < chunk.length; i++) {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      chunk[i] = bits[(state & 255) + ((state >>> 8) & 255) + ((state >>> 16) & 255) + (state >>> 24)];
    }
    yield new Uint8Array(chunk.buffer);
  }
}

/** FNV-1a. */
function hashName(name) {
  let hash = 0x811c9dc5;
  for (const c of name) hash = Math.imul(hash ^ c.charCodeAt(0), 0x01000193);
  return hash;
}

/** Byte-level BPE without merges: a token a byte. */
async function writeTokenizer(dir) {
  const end = "<|endoftext|>";
  const vocab = Object.fromEntries(byteCharacters().map((character, byte) => [character, byte]));
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  const tokenizer = {
    version: "1.0",
    truncation: null,
    padding: null,
    added_tokens: [
      {
        id: 256,
        content: end,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      },
    ],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: "BPE", unk_token: null, vocab: { ...vocab, [end]: 256 }, merges: [] },
  };
  await writeFile(join(dir, "tokenizer.json"), JSON.stringify(tokenizer));
  const config = {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: end,
    eos_token: end,
    clean_up_tokenization_spaces: false,
  };
  await writeFile(join(dir, "tokenizer_config.json"), JSON.stringify(config));
}

/** GPT-2's character for each byte: printable Latin-1 is itself, the rest follow from U+0100. */
export function byteCharacters() {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte !== 0xad);
    return String.fromCodePoint(printable ? byte : next++);
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const number = { type: "string" };
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      layers: number,
      hidden: number,
      intermediate: number,
      heads: number,
      "kv-heads": number,
      vocab: number,
      context: number,
      dtype: { type: "string" },
      seed: number,
      shards: number,
      tied: { type: "boolean" },
    },
  });
  if (positionals.length !== 1) {
    console.error(
      "usage: node test/hostile/tiny-llama.mjs DIR [--layers 2] [--hidden 64] ... (see the file's head)",
    );
    process.exit(2);
  }
  const options = {};
  for (const [key, value] of Object.entries(values))
    options[key === "kv-heads" ? "kvHeads" : key] =
      typeof value === "string" && key !== "dtype" ? Number(value) : value;
  await makeTinyLlama(positionals[0], options);
}
