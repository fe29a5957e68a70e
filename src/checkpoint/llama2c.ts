/**
 * A llama2.c checkpoint (`.bin`, the first version: 7 int32, then f32 weights) and its tokenizer file. There is
 * no magic number: a file is one when its header gives exactly its size.
 */
import { CorruptFileError, InputError } from "../errors.js";
import { parseModelConfig } from "./architectures.js";
import type { ByteSource } from "./byte-source.js";
import type { Checkpoint, TokenizerFiles } from "./checkpoint.js";
import { DenseCheckpoint, elements, type Hasher } from "./dense-checkpoint.js";
import { quote } from "./json.js";
import { interleavedToHalves } from "./rotary-layout.js";
import { matchTensors } from "./tensors.js";
import { sentencePieceTokenizer, TokenKind } from "./tokenizer-json.js";

const HEADER_BYTES = 28;
const BOS = 1;
const EOS = 2;

export interface OpenLlama2cOptions {
  readonly source: ByteSource;
  /** Opens the tokenizer file (`tok512.bin`, `tokenizer.bin`), where there is one; it is closed after use. */
  readonly openTokenizer: (
    vocabularySize: number,
  ) => Promise<(ByteSource & { close(): Promise<void> }) | null>;
  readonly hash: Hasher;
  readonly close: () => Promise<void>;
}

/** Throws InputError, one line, when the file is not what its header says. */
export async function openLlama2c(options: OpenLlama2cOptions): Promise<Checkpoint> {
  const { source, openTokenizer, hash, close } = options;
  const file = source.name;
  const { huggingFaceConfig, tied } = await readHeader(source);
  const config = parseModelConfig(huggingFaceConfig, file);
  const { layers, hiddenSize, intermediateSize, headSize, heads, kvHeads, vocabularySize } = config;
  const queries = heads * headSize;
  const keys = kvHeads * headSize;

  // The order of the file: each kind of matrix for all layers together.
  const places = new Map<string, { shape: readonly number[]; offset: number }>();
  let offset = HEADER_BYTES;
  const place = (name: string, ...shape: number[]) => {
    places.set(name, { shape, offset });
    offset += 4 * elements(shape);
  };
  const placeLayers = (part: string, ...shape: number[]) => {
    for (let layer = 0; layer < layers; layer++) place(`model.layers.${layer}.${part}.weight`, ...shape);
  };
  place("model.embed_tokens.weight", vocabularySize, hiddenSize);
  placeLayers("input_layernorm", hiddenSize);
  placeLayers("self_attn.q_proj", queries, hiddenSize);
  placeLayers("self_attn.k_proj", keys, hiddenSize);
  placeLayers("self_attn.v_proj", keys, hiddenSize);
  placeLayers("self_attn.o_proj", hiddenSize, queries);
  placeLayers("post_attention_layernorm", hiddenSize);
  placeLayers("mlp.gate_proj", intermediateSize, hiddenSize);
  placeLayers("mlp.down_proj", hiddenSize, intermediateSize);
  placeLayers("mlp.up_proj", intermediateSize, hiddenSize);
  place("model.norm.weight", hiddenSize);
  // Rotary cosines and sines of each position: they follow from the configuration.
  offset += 4 * config.contextLength * headSize;
  if (!tied) place("lm_head.weight", vocabularySize, hiddenSize);
  if (offset !== source.size)
    throw new CorruptFileError(
      `${file}: is no whole llama2.c file: its header asks for ${offset} bytes and it has ${source.size} (dim ${hiddenSize}, ${layers} layers, ${vocabularySize} tokens)`,
    );

  const stored = new Map([...places].map(([name, { shape }]) => [name, { shape, storedAs: "F32" }]));
  const tensors = matchTensors(config, stored, file);
  return new DenseCheckpoint({
    source: file,
    format: "llama2.c",
    config,
    huggingFaceConfig,
    generationConfig: null,
    tensors,
    load: async (name) => {
      const { shape, offset: at } = places.get(name)!;
      const bytes = await source.read(at, 4 * elements(shape));
      const aligned = bytes.byteOffset % 4 === 0 ? bytes : bytes.slice();
      const values = new Float32Array(aligned.buffer, aligned.byteOffset, elements(shape));
      if (/\.(q|k)_proj\./.test(name)) interleavedToHalves(values, headSize, shape[1]);
      return values;
    },
    tokenizer: async () => {
      const tokenizer = await openTokenizer(vocabularySize);
      if (!tokenizer) return null;
      try {
        return await readLlama2cTokenizer(tokenizer, vocabularySize);
      } finally {
        await tokenizer.close();
      }
    },
    hash,
    close,
  });
}

async function readHeader(source: ByteSource) {
  const file = source.name;
  if (source.size < HEADER_BYTES)
    throw new CorruptFileError(`${file}: has too few bytes for a llama2.c file`);
  const bytes = await source.read(0, HEADER_BYTES);
  const view = new DataView(bytes.buffer, bytes.byteOffset, HEADER_BYTES);
  if (view.getUint32(0, true) === 0x616b3432)
    throw new InputError(
      `${file}: is a llama2.c file of version ${view.getInt32(4, true)}; only version 0 can be read`,
    );
  const fields = Array.from({ length: 7 }, (_, i) => view.getInt32(4 * i, true));
  const [dim, hidden, layers, heads, kvHeads, vocabulary, context] = fields;
  // Negative: the output head is a matrix of its own.
  const tied = vocabulary > 0;
  if (
    [dim, hidden, layers, heads, kvHeads, Math.abs(vocabulary), context].some((n) => n < 1) ||
    dim % heads !== 0
  )
    throw new CorruptFileError(`${file}: is no llama2.c file: its header reads ${fields.join(", ")}`);
  return {
    tied,
    huggingFaceConfig: {
      architectures: ["LlamaForCausalLM"],
      model_type: "llama",
      hidden_act: "silu",
      vocab_size: Math.abs(vocabulary),
      hidden_size: dim,
      intermediate_size: hidden,
      num_hidden_layers: layers,
      num_attention_heads: heads,
      num_key_value_heads: kvHeads,
      head_dim: dim / heads,
      max_position_embeddings: context,
      rms_norm_eps: 1e-5,
      rope_theta: 10000,
      tie_word_embeddings: tied,
      bos_token_id: BOS,
      // Its training parts texts with BOS, and run.c ends a text there.
      eos_token_id: [EOS, BOS],
    },
  };
}

/**
 * int32 longest token, then for each token f32 score, int32 length, bytes (UTF-8, spaces written out). What is
 * said by position there is the same in all its files: 0 unknown, 1 BOS, 2 EOS, 3 .. 258 bytes.
 */
export async function readLlama2cTokenizer(
  source: ByteSource,
  vocabularySize: number,
): Promise<TokenizerFiles> {
  const file = source.name;
  const wrong = (reason: string) =>
    new CorruptFileError(`${file}: is not the tokenizer of ${vocabularySize} tokens: ${reason}`);
  // A token takes 8 bytes and its text; the longest of Llama's has 48.
  const limit = 4 + vocabularySize * (8 + 256);
  if (source.size < 4 + 8 * vocabularySize || source.size > limit) throw wrong(`it has ${source.size} bytes`);
  const bytes = await source.read(0, source.size);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const text = new TextDecoder("utf-8", { ignoreBOM: true });
  const tokens: string[] = [];
  const scores: number[] = [];
  let at = 4;
  for (let id = 0; id < vocabularySize; id++) {
    if (at + 8 > bytes.byteLength) throw wrong(`it ends before token ${id}`);
    const score = view.getFloat32(at, true);
    const length = view.getInt32(at + 4, true);
    if (length < 0 || length > bytes.byteLength - at - 8) throw wrong(`token ${id} claims ${length} bytes`);
    if (Number.isNaN(score)) throw wrong(`the score of token ${id} is NaN`);
    tokens.push(text.decode(bytes.subarray(at + 8, at + 8 + length)).replaceAll(" ", "\u2581"));
    scores.push(score);
    at += 8 + length;
  }
  if (at !== bytes.byteLength) throw wrong(`${bytes.byteLength - at} bytes follow the last token`);
  // The exporter writes these two with line breaks around them.
  tokens[BOS] = "<s>";
  tokens[EOS] = "</s>";
  if (vocabularySize < 259 || tokens[3] !== "<0x00>" || tokens[258] !== "<0xFF>")
    throw wrong(`tokens 3 to 258 are not the bytes (token 3 is ${quote(tokens[3] ?? "")})`);
  const kinds = tokens.map((_, id) =>
    id === 0 ? TokenKind.unknown : id < 3 ? TokenKind.control : id < 259 ? TokenKind.byte : TokenKind.normal,
  );
  return sentencePieceTokenizer(
    {
      vocabulary: {
        tokens,
        kinds,
        bosTokenId: BOS,
        eosTokenId: EOS,
        unknownTokenId: 0,
        paddingTokenId: undefined,
        addBos: true,
        addEos: false,
        chatTemplate: undefined,
      },
      scores,
      addSpacePrefix: true,
    },
    file,
  );
}
