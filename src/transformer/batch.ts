/**
 * Several sequences that advance together, one token each: every matrix is read (and, where it is coded, decoded)
 * once for all of them; attention is each sequence's own, over its own KV cache.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import { InputError } from "../errors.js";
import { allocateTogether, type BufferGroup } from "./buffers.js";
import { LayerSteps } from "./layer.js";
import type { Rope } from "./rope.js";
import { SessionScratch } from "./scratch.js";
import { TransformerSession } from "./session.js";
import type { LayerWeights, ModelWeights } from "./weights.js";
import type { LayerCache } from "./workspace.js";

export interface TransformerBatchOptions {
  /** Most sequences that advance together. */
  readonly sequences: number;
  /** Longest sequence in tokens. */
  readonly capacity: number;
  /** Prompt tokens that go through the layers together. */
  readonly chunk: number;
}

export class TransformerBatch {
  readonly sequences: number;
  readonly #backend: Backend;
  readonly #config: ModelConfig;
  readonly #weights: ModelWeights;
  readonly #scratch: SessionScratch;
  readonly #buffers: BufferGroup;
  /** The rotary tables' rows at the sequences' positions, [sequences, headSize / 2] each. */
  readonly #turns: Rope;
  /** [heads * headSize]: one sequence's queries and what they attended to. */
  readonly #query: Buffer;
  readonly #attended: Buffer;

  /** InputError when memory does not suffice. */
  constructor(
    backend: Backend,
    weights: ModelWeights,
    { sequences, capacity, chunk }: TransformerBatchOptions,
  ) {
    const { config } = weights;
    this.sequences = sequences;
    this.#backend = backend;
    this.#config = config;
    this.#weights = weights;
    this.#scratch = new SessionScratch(backend, config, { capacity, chunk: Math.max(chunk, sequences) });
    try {
      const allocated = allocateTogether(backend, (buffers) => ({
        buffers,
        turns: {
          cosines: buffers.allocate((sequences * config.headSize) / 2),
          sines: buffers.allocate((sequences * config.headSize) / 2),
        },
        query: buffers.allocate(config.heads * config.headSize),
        attended: buffers.allocate(config.heads * config.headSize),
      }));
      this.#buffers = allocated.buffers;
      this.#turns = allocated.turns;
      this.#query = allocated.query;
      this.#attended = allocated.attended;
    } catch (error) {
      this.#scratch.free();
      throw error;
    }
  }

  /** A sequence for this batch; it runs alone too (a prompt), but not while another of the batch does. */
  createSession(capacity: number): TransformerSession {
    return new TransformerSession(this.#backend, this.#weights, capacity, this.#scratch);
  }

  /**
   * Appends ids[i] to sessions[i]; logits [vocabularySize] of each. Sessions are this batch's own and distinct.
   * InputError for too many of them, a full one, or an id outside the vocabulary; none has then advanced.
   */
  async forward(sessions: readonly TransformerSession[], ids: Int32Array): Promise<Float32Array[]> {
    this.#check(sessions, ids);
    const { vocabularySize, headSize } = this.#config;
    const { hidden, rope } = this.#scratch;
    this.#scratch.busy = true;
    try {
      this.#weights.embedding.gather(ids, hidden);
      const positions = Int32Array.from(sessions, ({ position }) => position);
      this.#backend.gather(rope.cosines, positions, headSize / 2, this.#turns.cosines);
      this.#backend.gather(rope.sines, positions, headSize / 2, this.#turns.sines);
      this.#weights.layers.forEach((layer, i) => {
        const caches = sessions.map((session) => session.caches[i]);
        this.#forwardLayer(layer, caches, positions);
      });
      for (const session of sessions) session.advance();
      const logits = new Float32Array(sessions.length * vocabularySize);
      await this.#scratch.readLogits(this.#weights, 0, sessions.length, logits);
      return sessions.map((_, i) => logits.subarray(i * vocabularySize, (i + 1) * vocabularySize));
    } finally {
      this.#scratch.busy = false;
    }
  }

  /** Gives back what the sessions share; they are not used afterwards. */
  free(): void {
    this.#buffers.free();
    this.#scratch.free();
  }

  #forwardLayer(layer: LayerWeights, caches: readonly LayerCache[], positions: Int32Array): void {
    const { workspace, hidden } = this.#scratch;
    const { heads, kvHeads, headSize } = this.#config;
    const run = new LayerSteps(this.#backend, this.#config, workspace, caches.length);
    run.normalise(hidden, layer.inputNorm);
    run.project(layer);
    const turn = { ...this.#turns, tokens: caches.length, position: 0, headSize };
    this.#backend.rope({ ...turn, x: workspace.query, heads });
    this.#backend.rope({ ...turn, x: workspace.key, heads: kvHeads });
    for (const [row, cache] of caches.entries()) this.#attend(row, cache, positions[row]);
    run.addProjected(layer.o, workspace.attended, hidden);
    run.normalise(hidden, layer.postAttentionNorm);
    run.activate(layer);
    run.addProjected(layer.down, workspace.gate, hidden);
  }

  /** Row `row` of the workspace's queries, keys and values over its own cache. */
  #attend(row: number, cache: LayerCache, position: number): void {
    const backend = this.#backend;
    const { query, key, value, attended } = this.#scratch.workspace;
    const { heads, kvHeads, headSize, slidingWindow } = this.#config;
    const columns = heads * headSize;
    const keyColumns = kvHeads * headSize;
    backend.copy(key, row * keyColumns, cache.keys, position * keyColumns, keyColumns);
    backend.copy(value, row * keyColumns, cache.values, position * keyColumns, keyColumns);
    backend.copy(query, row * columns, this.#query, 0, columns);
    backend.attention({
      query: this.#query,
      keys: cache.keys,
      values: cache.values,
      y: this.#attended,
      tokens: 1,
      position,
      heads,
      kvHeads,
      headSize,
      scale: 1 / Math.sqrt(headSize),
      window: slidingWindow,
    });
    backend.copy(this.#attended, 0, attended, row * columns, columns);
  }

  #check(sessions: readonly TransformerSession[], ids: Int32Array): void {
    if (this.#scratch.busy) throw new Error("forward was called before the previous call had finished");
    const count = sessions.length;
    if (count === 0 || count > this.sequences || count !== ids.length)
      throw new InputError(
        `${count} sequences with ${ids.length} tokens for a batch of up to ${this.sequences}`,
      );
    if (new Set(sessions).size < count) throw new InputError("a sequence is in the batch twice");
    for (const [i, { position, capacity }] of sessions.entries()) {
      if (position >= capacity) throw new InputError(`a sequence of ${capacity} tokens is full`);
      if (!(ids[i] >= 0 && ids[i] < this.#config.vocabularySize))
        throw new InputError(`token id ${ids[i]} is outside the vocabulary`);
    }
  }
}
