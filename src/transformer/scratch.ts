/**
 * Everything of a forward pass that is not a sequence's own: activations, rotary tables, logits, layers made
 * ready for a single token. Sessions that take turns share one.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import { allocateTogether, type BufferGroup } from "./buffers.js";
import { type Rope, uploadRope } from "./rope.js";
import { areCoded, SharedInput, TokenLayer } from "./token.js";
import { LAYER_LINEARS, type LayerWeights, type ModelWeights } from "./weights.js";
import { allocateWorkspace, type Workspace } from "./workspace.js";

/**
 * How coded matrices are multiplied: "fast" in whole numbers (docs/performance.md), those of a token given on its own
 * looked up in tables; "exact" in floats.
 */
export type Decoding = "fast" | "exact";

/** Tokens that go through the layers together: enough that weights are read once for many multiplications. */
const PREFILL_TOKENS = 512;
/** Logits held on the backend at a time: 2^22 floats (16 MiB) are 85 tokens of a vocabulary of 49,152. */
const HEAD_ELEMENTS = 2 ** 22;

export interface SessionScratchOptions {
  /** Longest sequence in tokens. */
  readonly capacity: number;
  /** Tokens that go through the layers together. Default: 512, or the capacity. */
  readonly chunk?: number | undefined;
  /** Default exact. */
  readonly decoding?: Decoding | undefined;
}

export class SessionScratch {
  readonly workspace: Workspace;
  readonly rope: Rope;
  /** [workspace.maxTokens, hiddenSize], the residual stream. */
  readonly hidden: Buffer;
  /** Layers made ready for a token on its own; those that are not coded are not among them. */
  readonly tokenLayers: readonly (TokenLayer | undefined)[];
  readonly decoding: Decoding;
  /** A forward pass has begun and not ended. */
  busy = false;
  readonly #backend: Backend;
  readonly #config: ModelConfig;
  readonly #weights: ModelWeights;
  readonly #buffers: BufferGroup;
  /** [headTokens, hiddenSize] and [headTokens, vocabularySize]. */
  readonly #headInput: Buffer;
  readonly #logits: Buffer;
  readonly #headTokens: number;
  readonly #tokenHead: SharedInput | undefined;

  /** InputError when memory does not suffice. */
  constructor(
    backend: Backend,
    weights: ModelWeights,
    { capacity, chunk = Math.min(capacity, PREFILL_TOKENS), decoding = "exact" }: SessionScratchOptions,
  ) {
    const { config } = weights;
    this.decoding = decoding;
    this.#backend = backend;
    this.#config = config;
    this.#weights = weights;
    this.#headTokens = Math.max(1, Math.min(chunk, Math.floor(HEAD_ELEMENTS / config.vocabularySize)));
    const allocated = allocateTogether(backend, (buffers) => ({
      buffers,
      workspace: allocateWorkspace(buffers, config, chunk),
      rope: uploadRope(buffers, config, capacity),
      hidden: buffers.allocate(chunk * config.hiddenSize),
      headInput: buffers.allocate(this.#headTokens * config.hiddenSize),
      logits: buffers.allocate(this.#headTokens * config.vocabularySize),
    }));
    this.#buffers = allocated.buffers;
    this.workspace = allocated.workspace;
    this.rope = allocated.rope;
    this.hidden = allocated.hidden;
    this.#headInput = allocated.headInput;
    this.#logits = allocated.logits;
    const token = decoding === "fast" ? this.#prepareToken() : { layers: [] };
    this.tokenLayers = token.layers;
    this.#tokenHead = token.head;
  }

  /** Fills `logits` [tokens, vocabularySize] with those of the first rows of `hidden`. */
  async readLogits(logits: Float32Array, decoding = this.decoding): Promise<void> {
    const { vocabularySize } = this.#config;
    const tokens = logits.length / vocabularySize;
    // In equal parts: one or two rows left over would be multiplied another way, equal to rounding only.
    const part = Math.ceil(tokens / Math.ceil(tokens / this.#headTokens));
    for (let row = 0; row < tokens; row += part) {
      const count = Math.min(part, tokens - row);
      this.#runHead(row, count, tokens, decoding);
      const target = logits.subarray(row * vocabularySize, (row + count) * vocabularySize);
      await this.#backend.readInto(this.#logits, target);
    }
  }

  /** Logits [vocabularySize] of a row of `hidden`. */
  async lastLogits(row: number): Promise<Float32Array> {
    this.#runHead(row, 1, row + 1, this.decoding);
    return await this.#backend.read(this.#logits, 0, this.#config.vocabularySize);
  }

  free(): void {
    for (const layer of this.tokenLayers) layer?.free();
    this.#tokenHead?.free();
    this.#buffers.free();
  }

  #prepareToken(): { layers: readonly (TokenLayer | undefined)[]; head?: SharedInput | undefined } {
    const { layers, head, finalNorm } = this.#weights;
    const epsilon = this.#config.rmsNormEpsilon;
    const made: { free(): void }[] = [this.#buffers];
    const keep = <T extends { free(): void }>(part: T): T => {
      made.push(part);
      return part;
    };
    const prepareLayer = (layer: LayerWeights) =>
      keep(new TokenLayer(this.#backend, this.#config, layer, this.workspace, this.hidden));
    const input = { x: this.hidden, norm: { weight: finalNorm, epsilon } };
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

  /** #logits = the final norm and the head of `tokens` rows of `hidden`, of the `all` there, from `row` on. */
  #runHead(row: number, tokens: number, all: number, decoding: Decoding): void {
    const { hiddenSize, rmsNormEpsilon } = this.#config;
    if (this.#tokenHead && all === 1) {
      this.#tokenHead.run();
      return;
    }
    const input = this.#headInput;
    this.#backend.copy(this.hidden, row * hiddenSize, input, 0, tokens * hiddenSize);
    this.#backend.rmsNorm(input, this.#weights.finalNorm, input, tokens, hiddenSize, rmsNormEpsilon);
    this.#weights.head.forward(input, this.#logits, tokens, decoding === "fast");
  }
}
