/**
 * A session that knows which tokens its KV cache holds, so that a new prompt only pays for what differs from
 * the last one: a conversation's next turn, another question about the same text.
 */
import type { Session } from "./model.js";

export class PrefixCache {
  readonly #session: Session;
  /** The tokens in the cache, in order. */
  #ids: number[] = [];
  /** Those whose keys and values are what a new run would compute: all, until `shift`. */
  #exact = Number.POSITIVE_INFINITY;

  /** `session` is fresh, and is only used through this cache from here on. */
  constructor(session: Session) {
    this.#session = session;
  }

  /** Tokens that prompt and answer may have together. */
  get capacity(): number {
    return this.#session.capacity;
  }

  /** Tokens in the cache. */
  get length(): number {
    return this.#ids.length;
  }

  /**
   * Keeps the longest common prefix of the cached tokens and `ids` and forgets the rest. Returns its length,
   * at most ids.length - 1: the last token must be run to predict the one after it.
   */
  keepPrefix(ids: readonly number[]): number {
    const limit = Math.min(this.#ids.length, ids.length - 1, this.#exact);
    let common = 0;
    while (common < limit && this.#ids[common] === ids[common]) common++;
    this.#session.truncate(common);
    this.#ids.length = common;
    this.#exact = Number.POSITIVE_INFINITY;
    return common;
  }

  /** Appends tokens; logits [vocabularySize] for what follows the last one. */
  async forward(ids: readonly number[]): Promise<Float32Array> {
    const logits = await this.#session.forward(Int32Array.from(ids), { logits: "last" });
    this.#ids.push(...ids);
    return logits;
  }

  /** Forgets `discard` tokens after the first `keep`: see Session. */
  shift(keep: number, discard: number): void {
    this.#session.shift(keep, discard);
    this.#ids.splice(keep, discard);
    this.#exact = Math.min(this.#exact, keep);
  }

  free(): void {
    this.#session.free();
  }
}
