/** What `loadModel` gives: a model in memory, its threads, and text from it. */
import type { GenerateEvent, GenerateOptions, Prompt } from "./generate.js";
import type { Batch, BatchOptions, LanguageModel } from "./model.js";

/** A model in memory, as `loadModel` returns it. */
export interface LoadedModel extends LanguageModel {
  /** Threads that it computes with. */
  readonly threads: number;
  /** Bytes of memory that the weights hold. */
  readonly bytes: number;
  /** Of opening and loading. */
  readonly loadSeconds: number;
  /** InputError when memory does not suffice. */
  createBatch(options: BatchOptions): Batch;
  /** Text that follows `prompt`, or the answer to a conversation, token by token: see `generate`. */
  generate(prompt: Prompt, options?: GenerateOptions): AsyncGenerator<GenerateEvent, void>;
  /** Frees weights and worker threads; open sessions are gone with them. */
  close(): Promise<void>;
}
