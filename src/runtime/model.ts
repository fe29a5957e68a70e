/**
 * What text generation, evaluation and the server ask of a model: logits for token ids, with a KV cache.
 * Implemented over the transformer by `loadModel`; tests implement it with a Markov chain.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Constraint } from "../grammar/constraint.js";
import type { AnswerFormat } from "../grammar/schema.js";
import type { Tokenizer } from "../text/tokenizer.js";

export interface ForwardOptions {
  /** Logits of the last token only (default), or of every token given. */
  readonly logits?: "last" | "all";
}

/** One sequence and its KV cache. Calls must not overlap: await one `forward` before the next. */
export interface Session {
  /** Tokens that this session can hold: prompt and answer together. */
  readonly capacity: number;
  /** Tokens in the cache; the next token given to `forward` has this position. */
  readonly position: number;
  /**
   * Appends `ids` and returns logits: [vocabularySize] of the last token, or [ids.length, vocabularySize]
   * with `logits: "all"`, row-major; row i predicts the token after ids[i]. The array belongs to the caller.
   * InputError when `ids` is empty, holds an id outside the vocabulary, or does not fit the capacity.
   */
  forward(ids: Int32Array, options?: ForwardOptions): Promise<Float32Array>;
  /** Forgets everything from `position` on (0 <= position <= this.position). */
  truncate(position: number): void;
  /**
   * Forgets `discard` tokens from position `keep` on (keep + discard <= this.position); those after them move to
   * their place, which is approximate: their values have seen the forgotten ones.
   */
  shift(keep: number, discard: number): void;
  /** Gives the cache's memory back; the session is not used afterwards. */
  free(): void;
}

/** Sequences that advance together, for what one costs and little more. */
export interface Batch {
  /** Most sequences that advance together. */
  readonly sequences: number;
  /**
   * A sequence for this batch. Its `forward` (a prompt) and the batch's must not overlap. `exact` keeps keys and
   * values in f32, as `eval` does, whatever the model was loaded with.
   */
  createSession(capacity: number, options?: { readonly exact?: boolean }): Session;
  /**
   * Appends the tokens ids[i] to sessions[i], which are of this batch and distinct; logits [vocabularySize] of the last
   * of each, overwritten by the next call. Beside a token of each there is room for `chunk` tokens of prompts.
   */
  forward(sessions: readonly Session[], ids: readonly Int32Array[]): Promise<Float32Array[]>;
  /** Gives back what the sessions share; free them first. */
  free(): void;
}

export interface BatchOptions {
  /** Most sequences that advance together. */
  readonly sequences: number;
  /** Most tokens that a session's `forward` runs at a time. */
  readonly chunk: number;
}

export interface LanguageModel {
  readonly config: ModelConfig;
  readonly tokenizer: Tokenizer;
  /** Longest sequence in tokens; at most config.contextLength. */
  readonly contextLength: number;
  /** `capacity` in tokens, 1 ... contextLength; InputError otherwise, or when memory does not suffice. */
  createSession(capacity: number): Session;
  /** An answer's grammar, to be freed. InputError, one line, for a schema that cannot be enforced. */
  createConstraint?: ((format: AnswerFormat) => Promise<Constraint>) | undefined;
}
