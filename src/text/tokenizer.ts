/**
 * The tokenizer of a model: text to token ids and back, the ids that begin and end a text, and the chat
 * template.
 */
import type { ChatMessage } from "./chat-template.js";

export interface EncodeOptions {
  /** Put the tokens around the text that the tokenizer itself would add (BOS, for most). Default true. */
  readonly addSpecialTokens?: boolean;
}

export interface DecodeOptions {
  /** Leave special tokens (BOS, end of turn, ...) out of the text. Default true. */
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
  /** Special tokens written out in the text (`<|im_start|>`) become their ids. */
  encode(text: string, options?: EncodeOptions): number[];
  /** The same ids as `encode`, in time linear in the text: for whole corpora. */
  encodeLong(text: string, options?: EncodeOptions): Int32Array;
  /** Bytes that are not UTF-8 become U+FFFD. Ids without a token are refused with InputError. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
  /** The id of a token by its exact spelling in the vocabulary, or null. */
  tokenId(token: string): number | null;
  /** The conversation as the model expects it. InputError where the model has no chat template. */
  applyChatTemplate(messages: readonly ChatMessage[], options?: { addGenerationPrompt?: boolean }): string;
}
