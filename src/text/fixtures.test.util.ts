/** Small tokenizers for tests, built here, and the real ones of ../shared where that folder exists. */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { TokenizerFiles } from "../checkpoint/checkpoint.js";
import { BYTE_OF_CHARACTER } from "./byte-level.js";

/** Byte-level BPE: 256 bytes, a few merges, `<|im_start|>` = 256, `<|im_end|>` = 257; adds no BOS. */
export function byteLevelFiles(config: Record<string, unknown> = {}): TokenizerFiles {
  const tokens = [...BYTE_OF_CHARACTER].sort((a, b) => a[1] - b[1]).map(([character]) => character);
  const merges = ["Ġ t", "h e", "Ġt he", "l l", "ll o", "he llo", "Ð ¿", "1 2", "2 1"];
  const special = ["<|im_start|>", "<|im_end|>"];
  const vocab = vocabulary([...tokens, ...special, ...merges.map((merge) => merge.replace(" ", ""))]);
  return {
    tokenizer: {
      added_tokens: special.map((content) => addedToken(vocab[content], content)),
      pre_tokenizer: {
        type: "Sequence",
        pretokenizers: [
          { type: "Digits", individual_digits: true },
          { type: "ByteLevel", add_prefix_space: false, use_regex: true },
        ],
      },
      decoder: { type: "ByteLevel" },
      model: { type: "BPE", unk_token: null, vocab, merges },
    },
    config: { bos_token: "<|im_start|>", eos_token: { content: "<|im_end|>" }, ...config },
  };
}

/** SentencePiece style: `<s>` = 1 in front, byte fallback, "▁" for spaces, one "word" for the whole text. */
export function sentencePieceFiles(config: Record<string, unknown> = {}): TokenizerFiles {
  const bytes = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, "0")}>`);
  const characters = [..."▁abcdefghijklmnopqrstuvwxyz.,"];
  const merges = ["▁ t", "h e", "▁t he", "e ▁", "a b", "b a", "ab a", "▁ ▁", "▁▁ ▁▁"];
  const special = ["<unk>", "<s>", "</s>"];
  const all = [...special, ...bytes, ...characters, ...merges.map((merge) => merge.replace(" ", ""))];
  const vocab = vocabulary([...new Set(all)]);
  return {
    tokenizer: {
      added_tokens: special.map((content) => addedToken(vocab[content], content)),
      normalizer: {
        type: "Sequence",
        normalizers: [
          { type: "Prepend", prepend: "▁" },
          { type: "Replace", pattern: { String: " " }, content: "▁" },
        ],
      },
      pre_tokenizer: null,
      post_processor: {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        pair: [],
        special_tokens: { "<s>": { id: "<s>", ids: [1], tokens: ["<s>"] } },
      },
      decoder: {
        type: "Sequence",
        decoders: [
          { type: "Replace", pattern: { String: "▁" }, content: " " },
          { type: "ByteFallback" },
          { type: "Fuse" },
          { type: "Strip", content: " ", start: 1, stop: 0 },
        ],
      },
      model: { type: "BPE", unk_token: "<unk>", fuse_unk: true, byte_fallback: true, vocab, merges },
    },
    config: { bos_token: "<s>", eos_token: "</s>", ...config },
  };
}

function vocabulary(tokens: readonly string[]): Record<string, number> {
  return Object.fromEntries(tokens.map((token, id) => [token, id]));
}

function addedToken(id: number, content: string): Record<string, unknown> {
  return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
}

const SHARED = join(import.meta.dirname, "../../../shared/data");

/** Path of a file of ../shared/data, or null where it is missing. */
export function sharedFile(path: string): string | null {
  const full = join(SHARED, path);
  return existsSync(full) ? full : null;
}

/** The tokenizer of a folder of ../shared/data, or null. */
export function sharedTokenizer(folder: string): TokenizerFiles | null {
  const tokenizer = sharedFile(`${folder}/tokenizer.json`);
  const config = sharedFile(`${folder}/tokenizer_config.json`);
  if (!tokenizer || !config) return null;
  const read = (path: string) => JSON.parse(readFileSync(path, "utf8")) as Record<string, unknown>;
  return { tokenizer: read(tokenizer), config: read(config) };
}

export const SHARED_TOKENIZERS = [
  "models/pocket-stories",
  "models/TinyStories-656K",
  "tokenizers/mistral-hf",
] as const;
