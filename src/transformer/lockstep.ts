/**
 * Many sequences that grow together, a token each at a time, so that weights are read once for all of them. They
 * stand side by side as heads: S sequences at one position are one row of S times the heads, for which rotation
 * and attention are what they are for one sequence.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import { throwIfAborted } from "../errors.js";
import { allocateTogether, type BufferGroup } from "./buffers.js";
import { allocateCache, type LayerCache } from "./kv-cache.js";
import { attendOver, LayerSteps } from "./layer.js";
import type { TrainableModel } from "./model-backward.js";
import { type Rope, uploadRope } from "./rope.js";
import type { LayerWeights } from "./weights.js";
import { allocateWorkspace, type Workspace } from "./workspace.js";

/** What is needed of a model: its layers are opened one after the other for each token. */
export type LockstepModel = Pick<TrainableModel, "config" | "embedding" | "head" | "finalNorm"> & {
  openLayer(index: number, pass: "forward"): Promise<{ readonly layer: LayerWeights }>;
};

/** Bytes of the caches of one sequence. */
export function cacheBytes({ layers, kvHeads, headSize }: ModelConfig, capacity: number): number {
  return 4 * 2 * layers * kvHeads * headSize * capacity;
}

export class LockstepSession {
  readonly #backend: Backend;
  readonly #model: LockstepModel;
  readonly #sequences: number;
  /** The configuration of S sequences side by side. */
  readonly #wide: ModelConfig;
  readonly #group: BufferGroup;
  readonly #rope: Rope;
  readonly #workspace: Workspace;
  readonly #caches: readonly LayerCache[];
  /** [S, hiddenSize] */
  readonly #hidden: Buffer;
  /** [S, vocabularySize] */
  readonly #logits: Buffer;
  #position = 0;

  /** `capacity`: most tokens of a sequence. InputError when memory does not suffice. */
  constructor(backend: Backend, model: LockstepModel, sequences: number, capacity: number) {
    const { config } = model;
    this.#backend = backend;
    this.#model = model;
    this.#sequences = sequences;
    const wide = { ...config, heads: sequences * config.heads, kvHeads: sequences * config.kvHeads };
    this.#wide = wide;
    const built = allocateTogether(backend, (group) => ({
      group,
      rope: uploadRope(group, config, capacity),
      workspace: allocateWorkspace(group, config, sequences),
      caches: Array.from({ length: config.layers }, () => allocateCache(group, wide, capacity)),
      hidden: group.allocate(sequences * config.hiddenSize),
      logits: group.allocate(sequences * config.vocabularySize),
    }));
    this.#group = built.group;
    this.#rope = built.rope;
    this.#workspace = built.workspace;
    this.#caches = built.caches;
    this.#hidden = built.hidden;
    this.#logits = built.logits;
  }

  /** Appends a token to each sequence; returns what follows them: logits [sequences, vocabularySize]. */
  async forward(ids: Int32Array, signal?: AbortSignal | undefined): Promise<Float32Array> {
    const model = this.#model;
    const { config } = model;
    const hidden = this.#hidden;
    const steps = new LayerSteps(this.#backend, config, this.#workspace, this.#sequences);
    model.embedding.gather(ids, hidden);
    for (let index = 0; index < config.layers; index++) {
      const { layer } = await model.openLayer(index, "forward");
      steps.normalise(hidden, layer.inputNorm);
      steps.project(layer);
      const place = { tokens: 1, cache: this.#caches[index], position: this.#position, rope: this.#rope };
      attendOver(this.#backend, this.#wide, layer, this.#workspace, place);
      steps.addProjected(layer.o, this.#workspace.attended, hidden);
      steps.normalise(hidden, layer.postAttentionNorm);
      steps.activate(layer);
      steps.addProjected(layer.down, this.#workspace.gate, hidden);
    }
    this.#position++;
    steps.normalise(hidden, model.finalNorm);
    model.head.forward(this.#workspace.normed, this.#logits, this.#sequences);
    const logits = await this.#backend.read(this.#logits);
    // Ctrl-C is an event: it is seen only when the event loop turns.
    await new Promise((resolve) => setTimeout(resolve));
    throwIfAborted(signal);
    return logits;
  }

  free(): void {
    this.#group.free();
  }
}
