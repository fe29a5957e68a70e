/**
 * The part of @huggingface/tokenizers that we use, typed here: the package's own declarations import each
 * other without file extensions, which Node's module resolution does not follow.
 */
import { Tokenizer } from "@huggingface/tokenizers";

/** Splits text into the pieces that are encoded on their own. */
export type PreTokenizer = (text: string, options?: { section_index?: number }) => string[];

export interface LibraryTokenizer {
  pre_tokenizer: PreTokenizer | null;
  /** `vocab[id]` is the token's spelling; the list may have holes. */
  readonly model: { readonly vocab: readonly (string | undefined)[] };
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  decode(
    ids: number[],
    options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean },
  ): string;
  token_to_id(token: string): number | undefined;
  get_added_tokens_decoder(): Map<number, { readonly content: string; readonly special: boolean }>;
}

/** Throws plain errors for files that it does not understand. */
export const LibraryTokenizer: new (
  tokenizer: Readonly<Record<string, unknown>>,
  config: Readonly<Record<string, unknown>>,
) => LibraryTokenizer = Tokenizer;
