/**
 * Builds tokenizer.json and tokenizer_config.json (Hugging Face's shapes) from the bare vocabularies that GGUF
 * and llama2.c files carry: byte-level BPE with a list of merges, and SentencePiece BPE with scores.
 */
import { CorruptFileError } from "../errors.js";
import type { TokenizerFiles } from "./checkpoint.js";
import { quote } from "./json.js";

/** Longest token that takes part in merges; the longest in published vocabularies have 256 characters. */
const MAX_TOKEN_LENGTH = 1024;
/** SentencePiece's stand-in for a space. */
const SPACE = "\u2581";

/** What a token is for; GGUF's `tokenizer.ggml.token_type`. */
export const TokenKind = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

export interface Vocabulary {
  /** By id. */
  readonly tokens: readonly string[];
  /** TokenKind of each; all normal where absent. */
  readonly kinds: readonly number[] | undefined;
  readonly bosTokenId: number | undefined;
  readonly eosTokenId: number | undefined;
  readonly unknownTokenId: number | undefined;
  readonly paddingTokenId: number | undefined;
  /** `encode` puts BOS first. */
  readonly addBos: boolean;
  /** `encode` puts EOS last. */
  readonly addEos: boolean;
  readonly chatTemplate: string | undefined;
}

export interface ByteLevelOptions {
  readonly vocabulary: Vocabulary;
  /** "left right", by rank. */
  readonly merges: readonly string[];
  /** Regular expressions (Oniguruma) that split a text, applied one after the other. */
  readonly split: readonly string[];
  /** Texts are brought to Unicode NFC first. */
  readonly nfc: boolean;
  /** A piece that is a token by itself is not built from merges. */
  readonly ignoreMerges: boolean;
}

/** GPT-2's kind: bytes as printable characters. `file` is named in messages. */
export function byteLevelTokenizer(options: ByteLevelOptions, file: string): TokenizerFiles {
  const { vocabulary, split } = options;
  const vocab = indexTokens(vocabulary, file);
  const merges = options.merges.map((merge, rank) => {
    // The left side may not contain a space (it is written as Ġ), so that the first one parts the two.
    const space = merge.indexOf(" ", 1);
    const pair = [merge.slice(0, space), merge.slice(space + 1)];
    if (space < 1 || !pair.every((side) => vocab.has(side)))
      throw new CorruptFileError(`${file}: merge ${rank} (${quote(merge)}) is not a pair of tokens`);
    return pair;
  });
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
  return assemble(vocabulary, vocab, file, {
    normalizer: options.nfc ? { type: "NFC" } : null,
    pre_tokenizer: {
      type: "Sequence",
      pretokenizers: [
        ...split.map((Regex) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false })),
        byteLevel,
      ],
    },
    decoder: byteLevel,
    model: {
      unk_token: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: options.ignoreMerges,
      merges,
    },
  });
}

export interface SentencePieceOptions {
  readonly vocabulary: Vocabulary;
  /** By id: of two possible merges the one whose result has the higher score comes first. */
  readonly scores: readonly number[];
  /** A space is put before the text (and before the text after each special token). */
  readonly addSpacePrefix: boolean;
}

/**
 * SentencePiece's BPE kind. It has no list of merges: any two neighbours merge when their concatenation is a
 * token. All ways to part each token into two tokens give the list, ordered by the scores; equal scores in
 * the order of ids, and of one token's pairs the longer left side first, as Hugging Face's converter has it.
 */
export function sentencePieceTokenizer(options: SentencePieceOptions, file: string): TokenizerFiles {
  const { vocabulary, scores, addSpacePrefix } = options;
  const { tokens, kinds } = vocabulary;
  if (scores.length !== tokens.length)
    throw new CorruptFileError(`${file}: has ${scores.length} scores for ${tokens.length} tokens`);
  const vocab = indexTokens(vocabulary, file);
  const mergeable = tokens.flatMap((_, id) => {
    const kind = kinds?.[id] ?? TokenKind.normal;
    return kind === TokenKind.normal || kind === TokenKind.userDefined ? [id] : [];
  });
  mergeable.sort((a, b) => scores[b] - scores[a] || a - b);
  const merges: [string, string][] = [];
  for (const id of mergeable) {
    const token = tokens[id];
    for (let at = token.length - 1; at > 0; at--) {
      const left = token.slice(0, at);
      // Never between the halves of a surrogate pair: neither is a token.
      if (vocab.has(left) && vocab.has(token.slice(at))) merges.push([left, token.slice(at)]);
    }
  }
  const unknown = vocabulary.unknownTokenId;
  const prefix = addSpacePrefix ? [{ type: "Prepend", prepend: SPACE }] : [];
  return assemble(vocabulary, vocab, file, {
    normalizer: {
      type: "Sequence",
      normalizers: [...prefix, { type: "Replace", pattern: { String: " " }, content: SPACE }],
    },
    pre_tokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        { type: "Replace", pattern: { String: SPACE }, content: " " },
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(addSpacePrefix ? [{ type: "Strip", content: " ", start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      unk_token: unknown === undefined ? null : tokens[unknown],
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      merges,
    },
  });
}

/** Token -> id, with every id of the vocabulary's settings checked against it. */
function indexTokens(vocabulary: Vocabulary, file: string): Map<string, number> {
  const { tokens, kinds } = vocabulary;
  const vocab = new Map<string, number>();
  if (kinds && kinds.length !== tokens.length)
    throw new CorruptFileError(`${file}: has ${kinds.length} token types for ${tokens.length} tokens`);
  for (const [id, token] of tokens.entries()) {
    if (token.length > MAX_TOKEN_LENGTH)
      throw new CorruptFileError(`${file}: token ${id} has ${token.length} characters`);
    const other = vocab.get(token);
    if (other !== undefined)
      throw new CorruptFileError(`${file}: tokens ${other} and ${id} are both ${quote(token)}`);
    vocab.set(token, id);
  }
  for (const id of [
    vocabulary.bosTokenId,
    vocabulary.eosTokenId,
    vocabulary.unknownTokenId,
    vocabulary.paddingTokenId,
  ])
    if (id !== undefined && tokens[id] === undefined)
      throw new CorruptFileError(
        `${file}: the special token ${id} is not in the vocabulary of ${tokens.length}`,
      );
  return vocab;
}

interface Parts {
  readonly normalizer: object | null;
  readonly pre_tokenizer: object | null;
  readonly decoder: object;
  readonly model: object;
}

function assemble(
  vocabulary: Vocabulary,
  vocab: Map<string, number>,
  file: string,
  parts: Parts,
): TokenizerFiles {
  const { tokens, bosTokenId: bos, eosTokenId: eos, addBos, addEos } = vocabulary;
  if ((addBos && bos === undefined) || (addEos && eos === undefined))
    throw new CorruptFileError(`${file}: asks for a BOS or EOS token but names none`);
  const name = (id: number | undefined) => (id === undefined ? null : tokens[id]);
  const config: Record<string, unknown> = {
    tokenizer_class: "PreTrainedTokenizerFast",
    bos_token: name(bos),
    eos_token: name(eos),
    unk_token: name(vocabulary.unknownTokenId),
    pad_token: name(vocabulary.paddingTokenId),
    add_bos_token: addBos,
    add_eos_token: addEos,
    clean_up_tokenization_spaces: false,
  };
  if (vocabulary.chatTemplate !== undefined) config["chat_template"] = vocabulary.chatTemplate;
  return {
    tokenizer: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: addedTokens(vocabulary),
      normalizer: parts.normalizer,
      pre_tokenizer: parts.pre_tokenizer,
      post_processor: template(addBos ? tokens[bos!] : null, addEos ? tokens[eos!] : null, vocab),
      decoder: parts.decoder,
      model: {
        type: "BPE",
        dropout: null,
        continuing_subword_prefix: null,
        end_of_word_suffix: null,
        // fromEntries defines own properties, whatever a token is called ("__proto__" is one of GPT-2's pieces).
        vocab: Object.fromEntries(vocab),
        ...parts.model,
      },
    },
    config,
  };
}

/** Tokens that are found in a text before anything else is done to it. */
function addedTokens({ tokens, kinds }: Vocabulary): object[] {
  return tokens.flatMap((content, id) => {
    const kind = kinds?.[id] ?? TokenKind.normal;
    const special = kind === TokenKind.control || kind === TokenKind.unknown;
    if (content === "" || (!special && kind !== TokenKind.userDefined)) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
}

/** Puts BOS before and EOS after a text, or a post-processor that adds nothing. */
function template(bos: string | null, eos: string | null, vocab: Map<string, number>): object | null {
  if (bos === null && eos === null) return null;
  const around = (sequence: "A" | "B", type_id: number) => [
    ...(bos === null ? [] : [{ SpecialToken: { id: bos, type_id } }]),
    { Sequence: { id: sequence, type_id } },
    ...(eos === null ? [] : [{ SpecialToken: { id: eos, type_id } }]),
  ];
  const special = [bos, eos].filter((token) => token !== null);
  return {
    type: "TemplateProcessing",
    single: around("A", 0),
    pair: [...around("A", 0), ...around("B", 1)],
    special_tokens: Object.fromEntries(
      special.map((token) => [token, { id: token, ids: [vocab.get(token)], tokens: [token] }]),
    ),
  };
}
