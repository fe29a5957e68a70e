/**
 * Several sequences that advance together, one token each or a piece of a prompt: every matrix is read (and, where it
 * is coded, decoded) once for all of them; attention is each sequence's own, over its own KV cache.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend } from "../compute/backend.js";
import { InputError } from "../errors.js";
import { allocateTogether, type BufferGroup } from "./buffers.js";
import { type AnyLayerCache, type CacheFormat, storeInCache } from "./kv-cache.js";
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
  /** Prompt tokens that go through the layers together: of one sequence alone, or of all beside a token of each. */
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

/** Tokens of a sequence that are rows one after the other, and where they go. */
interface Piece {
  readonly cache: AnyLayerCache;
  readonly position: number;
  readonly tokens: number;
}

export class TransformerBatch {
  readonly sequences: number;
  readonly #backend: Backend;
  readonly #config: ModelConfig;
  readonly #weights: ModelWeights;
  readonly #cache: CacheFormat | undefined;
  readonly #scratch: SessionScratch;
  readonly #oneByOne: number;
  readonly #buffers: BufferGroup;
  /** The rotary tables' rows at the tokens' positions, [sequences + chunk, headSize / 2] each. */
  readonly #turns: Rope;
  /** [sequences, vocabularySize], for every call: 6 MB for 32 sequences of SmolLM2 that need no new pages. */
  #logits: Float32Array | undefined;

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
      chunk: sequences + chunk,
      decoding,
    });
    const { tokenLayers } = this.#scratch;
    const tables = tokenLayers.length > 0 && tokenLayers.every((layer) => layer !== undefined);
    this.#oneByOne = tables ? ONE_BY_ONE : 1;
    try {
      const allocated = allocateTogether(backend, (buffers) => ({
        buffers,
        turns: {
          cosines: buffers.allocate(((sequences + chunk) * config.headSize) / 2),
          sines: buffers.allocate(((sequences + chunk) * config.headSize) / 2),
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
   * Appends the tokens ids[i] to sessions[i]; logits [vocabularySize] of the last of each. Sessions are this batch's
   * own and distinct; what is returned is overwritten by the next call. InputError for too many of them or their tokens, a full one, or an id outside the vocabulary;
   * none has then advanced.
   */
  async forward(
    sessions: readonly TransformerSession[],
    ids: readonly Int32Array[],
  ): Promise<Float32Array[]> {
    const tokens = this.#check(sessions, ids);
    if (tokens <= this.#oneByOne) {
      const logits: Float32Array[] = [];
      for (const [i, session] of sessions.entries()) logits.push(await session.forward(ids[i]));
      return logits;
    }
    const { vocabularySize, headSize, hiddenSize } = this.#config;
    const { hidden, rope } = this.#scratch;
    this.#scratch.busy = true;
    try {
      this.#weights.embedding.gather(joined(ids), hidden);
      const positions = joined(ids.map((piece, i) => piece.map((_, t) => sessions[i].position + t)));
      this.#backend.gather(rope.cosines, positions, headSize / 2, this.#turns.cosines);
      this.#backend.gather(rope.sines, positions, headSize / 2, this.#turns.sines);
      this.#weights.layers.forEach((layer, i) => {
        const pieces = ids.map(({ length }, s) => ({
          cache: sessions[s].caches[i],
          position: sessions[s].position,
          tokens: length,
        }));
        this.#forwardLayer(layer, pieces, tokens);
      });
      let last = -1;
      for (const [i, session] of sessions.entries()) {
        session.advance(ids[i].length);
        // Rows move down only, in order: none is overwritten before it has moved.
        last += ids[i].length;
        if (last > i) this.#backend.copy(hidden, last * hiddenSize, hidden, i * hiddenSize, hiddenSize);
      }
      this.#logits ??= new Float32Array(this.sequences * vocabularySize);
      const logits = this.#logits.subarray(0, sessions.length * vocabularySize);
      await this.#scratch.readLogits(logits);
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

  #forwardLayer(layer: LayerWeights, pieces: readonly Piece[], tokens: number): void {
    const { workspace, hidden, decoding } = this.#scratch;
    const run = new LayerSteps(this.#backend, this.#config, workspace, tokens, decoding === "fast");
    run.normalise(hidden, layer.inputNorm);
    run.project(layer);
    const turn = { tokens, position: 0, rope: this.#turns };
    turnHeads(this.#backend, this.#config, layer, workspace, turn);
    let row = 0;
    for (const { cache, position, tokens: count } of pieces) {
      // Tokens of one sequence see each other: their keys and values are there before any of them attends.
      if (count > 1) storeInCache(this.#backend, this.#config, cache, workspace, position, count, row);
      row += count;
    }
    attendEach(
      this.#backend,
      this.#config,
      workspace,
      pieces.flatMap(({ cache, position, tokens: count }) =>
        Array.from({ length: count }, (_, t) => ({ cache, position: position + t })),
      ),
    );
    run.addProjected(layer.o, workspace.attended, hidden);
    run.normalise(hidden, layer.postAttentionNorm);
    run.activate(layer);
    run.addProjected(layer.down, workspace.gate, hidden);
  }

  /** How many tokens there are. */
  #check(sessions: readonly TransformerSession[], ids: readonly Int32Array[]): number {
    if (this.#scratch.busy) throw new Error("forward was called before the previous call had finished");
    const count = sessions.length;
    const tokens = ids.reduce((sum, { length }) => sum + length, 0);
    const { maxTokens } = this.#scratch.workspace;
    const fits = count > 0 && count <= this.sequences && tokens <= maxTokens;
    if (!fits || count !== ids.length || ids.some(({ length }) => length === 0))
      throw new InputError(
        `${count} sequences with ${ids.map(({ length }) => length)} tokens for a batch of up to ${this.sequences} with ${maxTokens}`,
      );
    if (new Set(sessions).size < count) throw new InputError("a sequence is in the batch twice");
    for (const [i, { position, capacity }] of sessions.entries()) {
      if (position + ids[i].length > capacity)
        throw new InputError(`a sequence of ${capacity} tokens is full`);
      const bad = ids[i].find((id) => id < 0 || id >= this.#config.vocabularySize);
      if (bad !== undefined) throw new InputError(`token id ${bad} is outside the vocabulary`);
    }
    return tokens;
  }
}

function joined(parts: readonly Int32Array[]): Int32Array {
  return Int32Array.from(parts.flatMap((part) => [...part]));
}
