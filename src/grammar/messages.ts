/** What the thread that holds the grammars is told, and answers. */

/** Given to the thread when it starts. */
export interface GrammarVocabulary {
  /**
   * For every id of the logits the token's bytes in GPT-2's alphabet of printable characters; "" for ids that no text
   * has: special tokens and padding.
   */
  readonly tokens: readonly string[];
  /** Ids that end an answer, allowed where it is whole. */
  readonly endIds: readonly number[];
}

/** `key`: which answer. */
export type GrammarQuestion = { readonly key: number } & (
  | { readonly do: "start"; readonly schema: string; readonly strict: boolean }
  | { readonly do: "accept"; readonly id: number }
  | { readonly do: "free" }
);

/** `number`: for its reply. */
export type GrammarRequest = GrammarQuestion & { readonly number: number };

/** Of "start" and "accept": which tokens may follow, a bit an id from the lowest of word 0 on; or why none can. */
export type GrammarReply =
  | { readonly number: number; readonly mask: Int32Array }
  | {
      readonly number: number;
      readonly error: string;
      /** The library cannot be trusted after this: the thread must end. */
      readonly broken: boolean;
    };
