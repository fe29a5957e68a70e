/**
 * Several sequences that advance together, one token each: every matrix is read (and, where it is coded, decoded)
 * once for all of them; attention is each sequence's own, over its own KV cache.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend } from "../compute/backend.js";
import { InputError } from "../errors.js";
import { allocateTogether, type BufferGroup } from "./buffers.js";
import type { AnyLayerCache, CacheFormat } from "./kv-cache.js";
import { attendEach, LayerSteps, turnHeads } from "./layer.js";
import type { Rope } from "./rope.js";
import { type Decoding, SessionScratch } from "./scratch.js";
import { TransformerSession } from "./session.js";
import type { LayerWeights, ModelWeights } from "./weights.js";

export interface TransformerBatchOptions {
  /** Most sequences that advance together. */
  readonly sequences: number;
  /** Longest sequence in tokens. */
  readonly capacity: number;
  /** Prompt tokens that go through the layers together. */
  readonly chunk: number;
  /** How keys and values are stored. Default f32. */
  readonly cache?: CacheFormat | undefined;
  /** Default exact. */
  readonly decoding?: Decoding | undefined;
}

/**
 * Up to here sequences are faster one after the other where all layers have look-up tables: a token of SmolLM2-135M at
 * 10x takes 9.6 ms of two cores by look-ups; as one of n it takes 3.2 ms and 1/n of 50 ms, most of it for decoding.
 */
const ONE_BY_ONE = 7;

export class TransformerBatch {
  readonly sequences: number;
  readonly #backend: Backend;
  readonly #config: ModelConfig;
  readonly #weights: ModelWeights;
  readonly #cache: CacheFormat | undefined;
  readonly #scratch: SessionScratch;
  readonly #oneByOne: number;
  readonly #buffers: BufferGroup;
  /** The rotary tables' rows at the sequences' positions, [sequences, headSize / 2] each. */
  readonly #turns: Rope;

  /** InputError when memory does not suffice. */
  constructor(
    backend: Backend,
    weights: ModelWeights,
    { sequences, capacity, chunk, cache, decoding }: TransformerBatchOptions,
  ) {
    const { config } = weights;
    this.sequences = sequences;
    this.#backend = backend;
    this.#config = config;
    this.#weights = weights;
    this.#cache = cache;
    this.#scratch = new SessionScratch(backend, weights, {
      capacity,
      chunk: Math.max(chunk, sequences),
      decoding,
    });
    const { tokenLayers } = this.#scratch;
    const tables = tokenLayers.length > 0 && tokenLayers.every((layer) => layer !== undefined);
    this.#oneByOne = tables ? ONE_BY_ONE : 1;
    try {
      const allocated = allocateTogether(backend, (buffers) => ({
        buffers,
        turns: {
          cosines: buffers.allocate((sequences * config.headSize) / 2),
          sines: buffers.allocate((sequences * config.headSize) / 2),
        },
      }));
      this.#buffers = allocated.buffers;
      this.#turns = allocated.turns;
    } catch (error) {
      this.#scratch.free();
      throw error;
    }
  }

  /** A sequence for this batch; it runs alone too (a prompt), but not while another of the batch does. `exact` computes it in floats, and keeps keys and values in f32. */
  createSession(capacity: number, { exact = false } = {}): TransformerSession {
    return new TransformerSession(this.#backend, this.#weights, capacity, {
      cache: exact ? "f32" : this.#cache,
      decoding: exact ? "exact" : undefined,
      scratch: this.#scratch,
    });
  }

  /**
   * Appends ids[i] to sessions[i]; logits [vocabularySize] of each. Sessions are this batch's own and distinct.
   * InputError for too many of them, a full one, or an id outside the vocabulary; none has then advanced.
   */
  async forward(sessions: readonly TransformerSession[], ids: Int32Array): Promise<Float32Array[]> {
    this.#check(sessions, ids);
    if (sessions.length <= this.#oneByOne) {
      const logits: Float32Array[] = [];
      for (const [i, session] of sessions.entries())
        logits.push(await session.forward(ids.subarray(i, i + 1)));
      return logits;
    }
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
      await this.#scratch.readLogits(sessions.length, logits);
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

  #forwardLayer(layer: LayerWeights, caches: readonly AnyLayerCache[], positions: Int32Array): void {
    const { workspace, hidden, decoding } = this.#scratch;
    const run = new LayerSteps(this.#backend, this.#config, workspace, caches.length, decoding === "fast");
    run.normalise(hidden, layer.inputNorm);
    run.project(layer);
    const turn = { tokens: caches.length, position: 0, rope: this.#turns };
    turnHeads(this.#backend, this.#config, layer, workspace, turn);
    attendEach(
      this.#backend,
      this.#config,
      workspace,
      caches.map((cache, row) => ({ cache, position: positions[row] })),
    );
    run.addProjected(layer.o, workspace.attended, hidden);
    run.normalise(hidden, layer.postAttentionNorm);
    run.activate(layer);
    run.addProjected(layer.down, workspace.gate, hidden);
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
