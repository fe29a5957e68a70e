/**
 * The tokenizer of a model: text to token ids and back, the ids that begin and end a text, and the chat
 * template. The algorithms are @huggingface/tokenizers'; added here are which special tokens go around a
 * text, linear time on whole corpora, and decoding token by token.
 */
import type { TokenizerFiles } from "../checkpoint/checkpoint.js";
import { InputError } from "../errors.js";
import {
  type ChatMessage,
  type ChatTemplateOptions,
  findChatTemplate,
  NO_CHAT_TEMPLATE,
  renderChatTemplate,
} from "./chat-template.js";
import {
  bytesOfToken,
  createDetokenizer,
  type Detokenizer,
  type DetokenizerOptions,
  readDecodingRules,
  type TokenTable,
} from "./detokenizer.js";
import { LibraryTokenizer } from "./library.js";
import { cutAtMergeBoundaries } from "./merge-boundaries.js";

export interface EncodeOptions {
  /** Put the tokens around the text that the tokenizer itself would add (BOS, for most). Default true. */
  readonly addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leave special tokens (BOS, end of turn, …) out of the text. Default true. */
  readonly skipSpecialTokens?: boolean;
}

export interface Tokenizer {
  /** Token ids run from 0 to vocabularySize - 1; a model may have more rows (padding) than that. */
  readonly vocabularySize: number;
  /** The id that begins a text, or null where the tokenizer names none. */
  readonly bosTokenId: number | null;
  /** The id that ends a text or a turn, or null. A model's configuration may name more of them. */
  readonly eosTokenId: number | null;
  /** Whether `encode` with special tokens puts BOS first: what the perplexity protocol asks. */
  readonly addsBos: boolean;
  /** The chat template (Jinja), or null. */
  readonly chatTemplate: string | null;
  /** Special tokens written out in the text (`<|im_start|>`) become their ids. Time is linear in the text. */
  encode(text: string, options?: EncodeOptions): number[];
  /** `encode` into a typed array: a corpus is tokenised whole, never cut into pieces first. */
  encodeLong(text: string, options?: EncodeOptions): Int32Array;
  /** Bytes that are not UTF-8 become U+FFFD; ids that have no token are left out. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
  /** Decodes token by token, for text that is shown as it comes. */
  createDetokenizer(options?: DetokenizerOptions): Detokenizer;
  /** The id of a token by its exact spelling in the vocabulary, or null. */
  tokenId(token: string): number | null;
  /** The spelling of a token in the vocabulary (byte-level: in its alphabet), or null. */
  token(id: number): string | null;
  /** Whether a token is one for the model alone (BOS, end of turn, …), which `decode` leaves out. */
  isSpecial(id: number): boolean;
  /** The UTF-8 bytes that a token stands for within a text, a part of a character for some; none where no token has this id. */
  tokenBytes(id: number): Uint8Array;
  /** The conversation as the model expects it. InputError where the model has no chat template. */
  applyChatTemplate(messages: readonly ChatMessage[], options?: ChatTemplateOptions): string;
}

/** Largest id that a hostile file may name: the library allocates arrays of this length. */
const MAX_TOKEN_ID = 2 ** 22;

/** Builds the tokenizer. InputError when the files do not describe one that can be used. */
export function createTokenizer(files: TokenizerFiles): Tokenizer {
  const { config } = files;
  const library = openLibrary(files);
  const model = library.model;
  const rules = readDecodingRules(files.tokenizer["decoder"]);
  const tokenId = (token: string): number | null => library.token_to_id(token) ?? null;

  const bosToken = namedToken(config, "bos_token");
  const eosToken = namedToken(config, "eos_token");
  const bosTokenId = bosToken === null ? null : tokenId(bosToken);
  const eosTokenId = eosToken === null ? null : tokenId(eosToken);
  const { prefix, suffix } = surroundingTokens(library, config, bosTokenId);
  const chatTemplate = findChatTemplate(config);

  const addedTokens = library.get_added_tokens_decoder();
  const additional = config["additional_special_tokens"];
  const additionalSpecial = new Set<unknown>(Array.isArray(additional) ? additional : []);
  const table: TokenTable = {
    spelling: (id) => model.vocab[id],
    isAdded: (id) => addedTokens.has(id),
    isSpecial: (id) => addedTokens.get(id)?.special === true || additionalSpecial.has(model.vocab[id]),
  };

  const encode = (text: string, { addSpecialTokens = true }: EncodeOptions = {}): number[] => {
    const ids = library.encode(text, { add_special_tokens: false }).ids;
    return addSpecialTokens ? [...prefix, ...ids, ...suffix] : ids;
  };

  return {
    vocabularySize: model.vocab.length,
    bosTokenId,
    eosTokenId,
    addsBos: bosTokenId !== null && prefix[0] === bosTokenId,
    chatTemplate,
    encode,
    encodeLong: (text, options) => Int32Array.from(encode(text, options)),
    decode(ids, { skipSpecialTokens = true } = {}) {
      const known = Array.from(ids).filter((id) => model.vocab[id] !== undefined);
      if (known.length === 0) return "";
      // Never "clean up" spaces (" ." to "."): decoding gives back the text that was encoded.
      return library.decode(known, {
        skip_special_tokens: skipSpecialTokens,
        clean_up_tokenization_spaces: false,
      });
    },
    createDetokenizer: (options) => createDetokenizer(rules, table, options),
    tokenId,
    token: (id) => model.vocab[id] ?? null,
    isSpecial: table.isSpecial,
    tokenBytes: (id) => bytesOfToken(rules, table, id),
    applyChatTemplate(messages, options) {
      if (chatTemplate === null) throw new InputError(NO_CHAT_TEMPLATE);
      return renderChatTemplate(chatTemplate, messages, { bosToken, eosToken }, options);
    },
  };
}

function openLibrary(files: TokenizerFiles): LibraryTokenizer {
  const json: Record<string, unknown> = {
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: null,
    ...files.tokenizer,
    added_tokens: files.tokenizer["added_tokens"] ?? [],
  };
  checkIds(json);
  const model = json["model"] as BpeModelJson;
  try {
    const library = isBpe(model)
      ? openBpe(json, model, files.config)
      : new LibraryTokenizer(json, files.config);
    if (isPlainBpe(model)) {
      library.pre_tokenizer = cutAtMergeBoundaries(model.merges, library.pre_tokenizer);
    }
    return library;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new InputError(`tokenizer.json cannot be used: ${reason}`);
  }
}

/**
 * The library makes maps of vocabulary and merges and keeps what it made them from: of SmolLM2 8 of 25 MB in V8's
 * heap. So it gets lists of its own, which are emptied when it has read them.
 */
function openBpe(
  json: Readonly<Record<string, unknown>>,
  model: BpeModelJson,
  config: TokenizerFiles["config"],
): LibraryTokenizer {
  const merges = model.merges.map((merge) => (typeof merge === "string" ? merge.split(" ", 2) : merge));
  const lent = { ...model, merges };
  const library = new LibraryTokenizer({ ...json, model: lent }, config);
  lent.vocab = {};
  merges.length = 0;
  return library;
}

interface BpeModelJson {
  readonly type?: unknown;
  readonly vocab: unknown;
  readonly merges: (string | string[])[];
  readonly ignore_merges?: unknown;
  readonly end_of_word_suffix?: unknown;
  readonly continuing_subword_suffix?: unknown;
}

function isBpe(model: BpeModelJson): boolean {
  return model.type === "BPE" && Array.isArray(model.merges);
}

/** Byte-pair encoding in which the ids depend on the merges alone, not on where a pre-token begins or ends. */
function isPlainBpe(model: BpeModelJson): boolean {
  return (
    isBpe(model) && !model.ignore_merges && !model.end_of_word_suffix && !model.continuing_subword_suffix
  );
}

/** Ids must be whole numbers in bounds before the library indexes arrays with them. */
function checkIds(json: Readonly<Record<string, unknown>>): void {
  const model = json["model"] as { vocab?: unknown } | null | undefined;
  const vocab = model?.vocab;
  if (typeof vocab !== "object" || vocab === null) {
    throw new InputError("tokenizer.json has no vocabulary (model.vocab)");
  }
  const added = json["added_tokens"];
  if (!Array.isArray(added)) throw new InputError("tokenizer.json: added_tokens is not a list");
  // Unigram vocabularies are lists of [token, score]: their ids are positions.
  if (Array.isArray(vocab)) checkId(vocab.length - 1);
  else for (const token of Object.keys(vocab)) checkId((vocab as Readonly<Record<string, unknown>>)[token]);
  for (const token of added as { id?: unknown }[]) checkId(token?.id);
}

function checkId(id: unknown): void {
  if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id > MAX_TOKEN_ID) {
    throw new InputError(`tokenizer.json has an impossible token id: ${JSON.stringify(id)}`);
  }
}

/** `bos_token` and the like: a string, or an object with its `content`. */
function namedToken(config: Readonly<Record<string, unknown>>, key: string): string | null {
  const value = config[key];
  if (typeof value === "string") return value;
  const content = (value as { content?: unknown } | null | undefined)?.content;
  return typeof content === "string" ? content : null;
}

/**
 * The ids that go around a text: what the post-processor adds, found by trying it; an explicit
 * `add_bos_token` in tokenizer_config.json overrides it for BOS, as it does in transformers 5.
 */
function surroundingTokens(
  library: LibraryTokenizer,
  config: Readonly<Record<string, unknown>>,
  bosTokenId: number | null,
): { prefix: number[]; suffix: number[] } {
  const probe = "a";
  const plain = library.encode(probe, { add_special_tokens: false }).ids;
  const full = library.encode(probe, { add_special_tokens: true }).ids;
  const start = full.findIndex((_, i) => plain.every((id, j) => full[i + j] === id));
  if (start < 0 || full.some((id) => id === undefined)) {
    throw new InputError("tokenizer.json has a post_processor that names tokens outside the vocabulary");
  }
  const prefix = full.slice(0, start);
  const suffix = full.slice(start + plain.length);
  const addBos = config["add_bos_token"];
  if (bosTokenId !== null && typeof addBos === "boolean") {
    const has = prefix[0] === bosTokenId;
    if (addBos && !has) prefix.unshift(bosTokenId);
    if (!addBos && has) prefix.shift();
  }
  return { prefix, suffix };
}
