/**
 * Everything of a forward pass that is not a sequence's own: activations, rotary tables, logits. Sessions that
 * take turns share one.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import { allocateTogether, type BufferGroup } from "./buffers.js";
import { type Rope, uploadRope } from "./rope.js";
import type { ModelWeights } from "./weights.js";
import { allocateWorkspace, type Workspace } from "./workspace.js";

/** Tokens that go through the layers together: enough that weights are read once for many multiplications. */
const PREFILL_TOKENS = 512;
/** Logits held on the backend at a time: 2^22 floats (16 MiB) are 85 tokens of a vocabulary of 49,152. */
const HEAD_ELEMENTS = 2 ** 22;

export interface SessionScratchOptions {
  /** Longest sequence in tokens. */
  readonly capacity: number;
  /** Tokens that go through the layers together; default: 512, or the capacity. */
  readonly chunk?: number;
}

export class SessionScratch {
  readonly workspace: Workspace;
  readonly rope: Rope;
  /** [workspace.maxTokens, hiddenSize], the residual stream. */
  readonly hidden: Buffer;
  /** A forward pass has begun and not ended. */
  busy = false;
  readonly #backend: Backend;
  readonly #config: ModelConfig;
  readonly #buffers: BufferGroup;
  /** [headTokens, hiddenSize] and [headTokens, vocabularySize]. */
  readonly #headInput: Buffer;
  readonly #logits: Buffer;
  readonly #headTokens: number;

  /** InputError when memory does not suffice. */
  constructor(
    backend: Backend,
    config: ModelConfig,
    { capacity, chunk = Math.min(capacity, PREFILL_TOKENS) }: SessionScratchOptions,
  ) {
    this.#backend = backend;
    this.#config = config;
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
  }

  /** Applies the final norm and the head to rows first .. last - 1 of `hidden`; logits into `target`. */
  async readLogits(weights: ModelWeights, first: number, last: number, target: Float32Array): Promise<void> {
    const { hiddenSize, vocabularySize, rmsNormEpsilon } = this.#config;
    for (let row = first; row < last; row += this.#headTokens) {
      const tokens = Math.min(this.#headTokens, last - row);
      const input = this.#headInput;
      this.#backend.copy(this.hidden, row * hiddenSize, input, 0, tokens * hiddenSize);
      this.#backend.rmsNorm(input, weights.finalNorm, input, tokens, hiddenSize, rmsNormEpsilon);
      weights.head.forward(input, this.#logits, tokens);
      const logits = await this.#backend.read(this.#logits, 0, tokens * vocabularySize);
      target.set(logits, (row - first) * vocabularySize);
    }
  }

  free(): void {
    this.#buffers.free();
  }
}
