/**
 * One sequence: token ids in, logits out, with a KV cache. Long inputs go through the layers in chunks and
 * through the head in smaller ones, so that memory does not grow with the length of a prompt; sampling and
 * text are the runtime's affair.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend } from "../compute/backend.js";
import { InputError } from "../errors.js";
import { allocateTogether, type BufferGroup } from "./buffers.js";
import { type AnyLayerCache, allocateCacheIn, type CacheFormat, shiftCaches } from "./kv-cache.js";
import { forwardLayer } from "./layer.js";
import { type Decoding, SessionScratch } from "./scratch.js";
import type { ModelWeights } from "./weights.js";

export interface SessionOptions {
  /** How keys and values are stored. Default f32. */
  readonly cache?: CacheFormat | undefined;
  /** Default: that of the scratch, or exact. Of several tokens at a time; the scratch's is that of one. */
  readonly decoding?: Decoding | undefined;
  /** Of sessions that take turns. Default: the session's own. */
  readonly scratch?: SessionScratch | undefined;
}

export class TransformerSession {
  readonly capacity: number;
  /** Keys and values by layer, of positions 0 .. position - 1. */
  readonly caches: readonly AnyLayerCache[];
  readonly #backend: Backend;
  readonly #config: ModelConfig;
  readonly #weights: ModelWeights;
  readonly #buffers: BufferGroup;
  readonly #scratch: SessionScratch;
  readonly #ownsScratch: boolean;
  readonly #decoding: Decoding;
  #position = 0;

  /** `capacity` in tokens, 1 … config.contextLength. InputError otherwise, or when memory does not suffice. */
  constructor(
    backend: Backend,
    weights: ModelWeights,
    capacity: number,
    { cache = "f32", decoding, scratch }: SessionOptions = {},
  ) {
    const { config } = weights;
    if (!Number.isSafeInteger(capacity) || capacity < 1 || capacity > config.contextLength)
      throw new InputError(
        `a session of ${capacity} tokens is not possible: the model's context is 1 to ${config.contextLength} tokens`,
      );
    this.capacity = capacity;
    this.#backend = backend;
    this.#config = config;
    this.#weights = weights;
    const allocated = allocateTogether(backend, (buffers) => ({
      buffers,
      caches: weights.layers.map(() => allocateCacheIn(cache, buffers, config, capacity)),
    }));
    this.#buffers = allocated.buffers;
    this.caches = allocated.caches;
    this.#ownsScratch = scratch === undefined;
    try {
      this.#scratch = scratch ?? new SessionScratch(backend, weights, { capacity, decoding });
    } catch (error) {
      this.#buffers.free();
      throw error;
    }
    this.#decoding = decoding ?? this.#scratch.decoding;
  }

  /** Tokens in the cache; the next token given to `forward` has this position. */
  get position(): number {
    return this.#position;
  }

  /**
   * Appends `ids` and returns logits: [vocabularySize] of the last token, or [ids.length, vocabularySize] with
   * `logits: "all"`; row i predicts the token after ids[i]. The array belongs to the caller. InputError when
   * `ids` is empty, holds an id outside the vocabulary, or does not fit the capacity; the session is then as
   * it was before.
   */
  async forward(ids: Int32Array, options: { readonly logits?: "last" | "all" } = {}): Promise<Float32Array> {
    this.#check(ids);
    const { vocabularySize: vocabulary } = this.#config;
    const all = options.logits === "all";
    const scratch = this.#scratch;
    const chunk = scratch.workspace.maxTokens;
    scratch.busy = true;
    try {
      const result = new Float32Array(all ? ids.length * vocabulary : 0);
      for (let from = 0; ; from += chunk) {
        // A chunk may compute for seconds: let timers, signals and other sessions have their turn in between.
        if (from > 0) await new Promise((resolve) => setTimeout(resolve));
        const tokens = Math.min(chunk, ids.length - from);
        this.#forwardLayers(ids.subarray(from, from + tokens));
        const part = result.subarray(from * vocabulary, (from + tokens) * vocabulary);
        if (all) await scratch.readLogits(part, this.#decoding);
        if (from + tokens === ids.length) return all ? result : await scratch.lastLogits(tokens - 1);
      }
    } finally {
      scratch.busy = false;
    }
  }

  /** More positions, whose keys and values a batch has put into the caches. */
  advance(tokens: number): void {
    this.#position += tokens;
  }

  /** Forgets everything from `position` on (0 <= position <= this.position). */
  truncate(position: number): void {
    if (!Number.isSafeInteger(position) || position < 0 || position > this.#position)
      throw new InputError(
        `cannot truncate to position ${position}: the session holds ${this.#position} tokens`,
      );
    this.#position = position;
  }

  /**
   * Forgets `discard` tokens from position `keep` on; those after them move to their place, as if they had
   * followed the first `keep` at once. What they had seen of the forgotten ones stays in their values
   * (StreamingLLM, arXiv 2309.17453, section 3.2).
   */
  shift(keep: number, discard: number): void {
    const whole = Number.isSafeInteger(keep) && Number.isSafeInteger(discard) && keep >= 0 && discard >= 0;
    if (!whole || keep + discard > this.#position)
      throw new InputError(
        `cannot discard ${discard} tokens after the first ${keep}: the session holds ${this.#position}`,
      );
    if (discard === 0) return;
    if (this.#scratch.busy) throw new Error("shift was called before forward had finished");
    shiftCaches({
      backend: this.#backend,
      config: this.#config,
      caches: this.caches,
      scratch: this.#scratch.workspace,
      chunk: this.#scratch.workspace.maxTokens,
      from: keep + discard,
      by: discard,
      length: this.#position,
    });
    this.#position -= discard;
  }

  /** Gives the memory back; the session is not used afterwards. */
  free(): void {
    this.#buffers.free();
    if (this.#ownsScratch) this.#scratch.free();
  }

  #check(ids: Int32Array): void {
    if (this.#scratch.busy) throw new Error("forward was called before the previous call had finished");
    if (ids.length === 0) throw new InputError("no token ids were given");
    const free = this.capacity - this.#position;
    if (ids.length > free)
      throw new InputError(
        `${ids.length} more tokens do not fit: ${this.#position} of this session's ${this.capacity} are in use`,
      );
    const bad = ids.find((id) => id < 0 || id >= this.#config.vocabularySize);
    if (bad !== undefined)
      throw new InputError(
        `token id ${bad} is outside the vocabulary of ${this.#config.vocabularySize} tokens`,
      );
  }

  /** Runs one chunk through the layers and leaves it in the scratch's `hidden`. */
  #forwardLayers(ids: Int32Array): void {
    const { workspace, hidden, rope } = this.#scratch;
    this.#weights.embedding.gather(ids, hidden);
    this.#weights.layers.forEach((layer, i) => {
      const cache = this.caches[i];
      const position = this.#position;
      const token = ids.length === 1 ? this.#scratch.tokenLayers[i] : undefined;
      if (token) token.forward({ cache, position, rope });
      else
        forwardLayer(this.#backend, this.#config, layer, workspace, {
          hidden,
          cache,
          tokens: ids.length,
          position,
          rope,
          approximate: this.#decoding === "fast",
        });
    });
    this.#position += ids.length;
  }
}
