/**
 * One sequence: token ids in, logits out, with a KV cache. Long inputs go through the layers in chunks and
 * through the head in smaller ones, so that memory does not grow with the length of a prompt; sampling and
 * text are the runtime's affair.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import { InputError } from "../errors.js";
import { allocateTogether, type BufferGroup } from "./buffers.js";
import { type AnyLayerCache, allocateCacheIn, type CacheFormat, shiftCaches } from "./kv-cache.js";
import { forwardLayer } from "./layer.js";
import { type Rope, uploadRope } from "./rope.js";
import { areCoded, SharedInput, TokenLayer } from "./token.js";
import { LAYER_LINEARS, type LayerWeights, type ModelWeights } from "./weights.js";
import { allocateWorkspace, type Workspace } from "./workspace.js";

/**
 * How a token given on its own is computed: "fast" lets coded matrices look products up in tables of bytes
 * (relative error about 1 %, see docs/performance.md); "exact" computes it as one of many.
 */
export type Decoding = "fast" | "exact";

/** Tokens that go through the layers together: enough that weights are read once for many multiplications. */
const PREFILL_TOKENS = 512;
/** Logits held on the backend at a time: 2^22 floats (16 MiB) are 85 tokens of a vocabulary of 49,152. */
const HEAD_ELEMENTS = 2 ** 22;

export interface SessionOptions {
  /** How keys and values are stored. Default f32. */
  readonly cache?: CacheFormat | undefined;
  /** Default exact. */
  readonly decoding?: Decoding | undefined;
}

interface PreparedToken {
  readonly layers: readonly (TokenLayer | undefined)[];
  readonly head?: SharedInput | undefined;
}

export class TransformerSession {
  readonly capacity: number;
  readonly #backend: Backend;
  readonly #config: ModelConfig;
  readonly #weights: ModelWeights;
  readonly #buffers: BufferGroup;
  readonly #workspace: Workspace;
  readonly #rope: Rope;
  readonly #caches: readonly AnyLayerCache[];
  /** [chunk, hiddenSize], the residual stream. */
  readonly #hidden: Buffer;
  /** [headTokens, hiddenSize] and [headTokens, vocabularySize]. */
  readonly #headInput: Buffer;
  readonly #logits: Buffer;
  readonly #headTokens: number;
  /** Layers and head made ready for a token on its own; those that are not coded are not among them. */
  readonly #token: PreparedToken;
  #position = 0;
  #busy = false;

  /** `capacity` in tokens, 1 … config.contextLength. InputError otherwise, or when memory does not suffice. */
  constructor(
    backend: Backend,
    weights: ModelWeights,
    capacity: number,
    { cache = "f32", decoding = "exact" }: SessionOptions = {},
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
    const chunk = Math.min(capacity, PREFILL_TOKENS);
    this.#headTokens = Math.max(1, Math.min(chunk, Math.floor(HEAD_ELEMENTS / config.vocabularySize)));
    const allocated = allocateTogether(backend, (buffers) => ({
      buffers,
      workspace: allocateWorkspace(buffers, config, chunk),
      rope: uploadRope(buffers, config, capacity),
      caches: weights.layers.map(() => allocateCacheIn(cache, buffers, config, capacity)),
      hidden: buffers.allocate(chunk * config.hiddenSize),
      headInput: buffers.allocate(this.#headTokens * config.hiddenSize),
      logits: buffers.allocate(this.#headTokens * config.vocabularySize),
    }));
    this.#buffers = allocated.buffers;
    this.#workspace = allocated.workspace;
    this.#rope = allocated.rope;
    this.#caches = allocated.caches;
    this.#hidden = allocated.hidden;
    this.#headInput = allocated.headInput;
    this.#logits = allocated.logits;
    this.#token = decoding === "fast" ? this.#prepareToken() : { layers: [] };
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
    this.#busy = true;
    try {
      const result = new Float32Array(all ? ids.length * vocabulary : 0);
      for (let from = 0; ; from += this.#workspace.maxTokens) {
        // A chunk may compute for seconds: let timers, signals and other sessions have their turn in between.
        if (from > 0) await new Promise((resolve) => setTimeout(resolve));
        const tokens = Math.min(this.#workspace.maxTokens, ids.length - from);
        this.#forwardLayers(ids.subarray(from, from + tokens));
        if (all) await this.#readLogits(tokens, result.subarray(from * vocabulary));
        if (from + tokens === ids.length) return all ? result : await this.#lastLogits(tokens - 1);
      }
    } finally {
      this.#busy = false;
    }
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
    if (this.#busy) throw new Error("shift was called before forward had finished");
    shiftCaches({
      backend: this.#backend,
      config: this.#config,
      caches: this.#caches,
      scratch: this.#workspace,
      chunk: this.#workspace.maxTokens,
      from: keep + discard,
      by: discard,
      length: this.#position,
    });
    this.#position -= discard;
  }

  /** Gives the memory back; the session is not used afterwards. */
  free(): void {
    for (const layer of this.#token.layers) layer?.free();
    this.#token.head?.free();
    this.#buffers.free();
  }

  #check(ids: Int32Array): void {
    if (this.#busy) throw new Error("forward was called before the previous call had finished");
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

  #prepareToken(): PreparedToken {
    const { layers, head, finalNorm } = this.#weights;
    const epsilon = this.#config.rmsNormEpsilon;
    const made: { free(): void }[] = [this.#buffers];
    const keep = <T extends { free(): void }>(part: T): T => {
      made.push(part);
      return part;
    };
    const prepareLayer = (layer: LayerWeights) =>
      keep(new TokenLayer(this.#backend, this.#config, layer, this.#workspace, this.#hidden));
    const input = { x: this.#hidden, norm: { weight: finalNorm, epsilon } };
    const prepareHead = () =>
      keep(new SharedInput(this.#backend, input, [{ linear: head, y: this.#logits }]));
    try {
      return {
        layers: layers.map((layer) =>
          areCoded(LAYER_LINEARS.map((kind) => layer[kind])) ? prepareLayer(layer) : undefined,
        ),
        head: areCoded([head]) ? prepareHead() : undefined,
      };
    } catch (error) {
      for (const part of made) part.free();
      throw error;
    }
  }

  /** Runs one chunk through the layers and leaves it in #hidden. */
  #forwardLayers(ids: Int32Array): void {
    this.#weights.embedding.gather(ids, this.#hidden);
    this.#weights.layers.forEach((layer, i) => {
      const token = ids.length === 1 ? this.#token.layers[i] : undefined;
      if (token) token.forward({ cache: this.#caches[i], position: this.#position, rope: this.#rope });
      else
        forwardLayer(this.#backend, this.#config, layer, this.#workspace, {
          hidden: this.#hidden,
          cache: this.#caches[i],
          tokens: ids.length,
          position: this.#position,
          rope: this.#rope,
        });
    });
    this.#position += ids.length;
  }

  /** Logits of the first `tokens` rows of #hidden. */
  async #readLogits(tokens: number, target: Float32Array): Promise<void> {
    const { vocabularySize } = this.#config;
    for (let row = 0; row < tokens; row += this.#headTokens) {
      const count = Math.min(this.#headTokens, tokens - row);
      this.#runHead(row, count, tokens);
      target.set(await this.#backend.read(this.#logits, 0, count * vocabularySize), row * vocabularySize);
    }
  }

  async #lastLogits(row: number): Promise<Float32Array> {
    this.#runHead(row, 1, row + 1);
    return await this.#backend.read(this.#logits, 0, this.#config.vocabularySize);
  }

  /** #logits = the final norm and the head of `tokens` rows of #hidden, of the `all` there, from `row` on. */
  #runHead(row: number, tokens: number, all: number): void {
    const { hiddenSize, rmsNormEpsilon } = this.#config;
    if (this.#token.head && all === 1) {
      this.#token.head.run();
      return;
    }
    const input = this.#headInput;
    this.#backend.copy(this.#hidden, row * hiddenSize, input, 0, tokens * hiddenSize);
    this.#backend.rmsNorm(input, this.#weights.finalNorm, input, tokens, hiddenSize, rmsNormEpsilon);
    this.#weights.head.forward(input, this.#logits, tokens);
  }
}
