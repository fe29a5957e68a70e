/**
 * The tokenizer in a GGUF file's metadata (`tokenizer.ggml.*`, `tokenizer.chat_template`) in Hugging Face's
 * shapes. GGUF names a model's pre-tokenizer only by a keyword; the expressions behind it are listed here, for
 * the ones that are certain. Others are refused by name, when the tokenizer is asked for.
 */
import { InputError } from "../errors.js";
import type { TokenizerFiles } from "./checkpoint.js";
import { MetadataReader } from "./gguf-config.js";
import type { GgufMetadata } from "./gguf-header.js";
import { quote } from "./json.js";
import { byteLevelTokenizer, sentencePieceTokenizer, type Vocabulary } from "./tokenizer-json.js";

interface PreTokenizer {
  readonly split: readonly string[];
  readonly nfc?: boolean;
  readonly ignoreMerges?: boolean;
  /** Where the file does not say. */
  readonly addBos?: boolean;
}

/** English contractions in any case, as alternatives: `(?i:...)` is not known to every engine. */
const CONTRACTIONS = "'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]";
const WHITE_SPACE = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
/** As GPT-4's cl100k, with numbers in groups of at most `digits`. */
const cl100k = (digits: string) =>
  `${CONTRACTIONS}|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${WHITE_SPACE}`;
const UPPER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const WORD_START = "[^\\r\\n\\p{L}\\p{N}]?";

const gpt2: PreTokenizer = { split: [GPT2] };
const singleDigits: PreTokenizer = { split: ["\\p{N}", GPT2] };
const llama3: PreTokenizer = { split: [cl100k("\\p{N}{1,3}")], ignoreMerges: true, addBos: true };
const qwen2: PreTokenizer = { split: [cl100k("\\p{N}")], nfc: true };
const tekken: PreTokenizer = {
  split: [
    `${WORD_START}${UPPER}*${LOWER}+|${WORD_START}${UPPER}+${LOWER}*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${WHITE_SPACE}`,
  ],
  ignoreMerges: true,
  addBos: true,
};

/** By `tokenizer.ggml.pre`. */
const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map([
  ["gpt-2", gpt2],
  ["smollm", singleDigits],
  ["starcoder", singleDigits],
  ["llama-bpe", llama3],
  ["llama-v3", llama3],
  ["llama3", llama3],
  ["qwen2", qwen2],
  ["deepseek-r1-qwen", qwen2],
  ["tekken", tekken],
]);

/** Null where the file has no tokenizer; InputError where it has one that cannot be rebuilt. */
export function ggufTokenizer(metadata: GgufMetadata, file: string): TokenizerFiles | null {
  const read = new MetadataReader(metadata, file);
  const model = read.string("tokenizer.ggml.model");
  if (model === undefined || model === "no_vocab") return null;
  if (model === "llama")
    return sentencePieceTokenizer(
      {
        vocabulary: readVocabulary(read, true),
        scores: read.array("tokenizer.ggml.scores", "number") ?? [],
        addSpacePrefix: read.boolean("tokenizer.ggml.add_space_prefix") ?? true,
      },
      file,
    );
  if (model !== "gpt2")
    throw new InputError(
      `${file}: the tokenizer ${quote(model)} is not supported; supported are "gpt2", "llama"`,
    );
  const name = read.string("tokenizer.ggml.pre");
  const pre = PRE_TOKENIZERS.get(name ?? "");
  if (!pre)
    throw new InputError(
      `${file}: ${name === undefined ? "names no pre-tokenizer (tokenizer.ggml.pre; it is from an old converter)" : `the pre-tokenizer ${quote(name)} is not supported`}; supported are ${[...PRE_TOKENIZERS.keys()].join(", ")}`,
    );
  return byteLevelTokenizer(
    {
      vocabulary: readVocabulary(read, pre.addBos ?? false),
      merges: read.array("tokenizer.ggml.merges", "string") ?? [],
      split: pre.split,
      nfc: pre.nfc ?? false,
      ignoreMerges: pre.ignoreMerges ?? false,
    },
    file,
  );
}

function readVocabulary(read: MetadataReader, addBos: boolean): Vocabulary {
  const tokens = read.array("tokenizer.ggml.tokens", "string");
  if (!tokens) read.fail("tokenizer.ggml.tokens is missing");
  return {
    tokens,
    kinds: read.array("tokenizer.ggml.token_type", "number"),
    bosTokenId: read.number("tokenizer.ggml.bos_token_id"),
    eosTokenId: read.number("tokenizer.ggml.eos_token_id"),
    unknownTokenId: read.number("tokenizer.ggml.unknown_token_id"),
    paddingTokenId: read.number("tokenizer.ggml.padding_token_id"),
    addBos: read.boolean("tokenizer.ggml.add_bos_token") ?? addBos,
    addEos: read.boolean("tokenizer.ggml.add_eos_token") ?? false,
    chatTemplate: read.string("tokenizer.chat_template"),
  };
}
