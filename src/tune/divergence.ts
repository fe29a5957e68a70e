/**
 * Distillation as an objective: the divergence KL(teacher || student) of the predictions over the whole vocabulary,
 * at every position (Hinton et al. 2015, arXiv 1503.02531, at temperature 1).
 */
import type { Backend, Buffer } from "../compute/backend.js";
import type { TrainingBackend } from "../compute/training.js";
import type { TrainingExample } from "../training/data.js";
import { type Objective, sumOf } from "../training/objective.js";
import { type HeadChunk, ModelBackward } from "../transformer/model-backward.js";
import type { OriginalModel } from "./original.js";

export class Divergence implements Objective {
  readonly #backend: Backend;
  readonly #training: TrainingBackend;
  readonly #teacher: OriginalModel;
  readonly #pass: ModelBackward;
  readonly #losses: Buffer;

  /** `context`: most tokens of an example. */
  constructor(backend: Backend, training: TrainingBackend, teacher: OriginalModel, context: number) {
    this.#backend = backend;
    this.#training = training;
    this.#teacher = teacher;
    this.#pass = new ModelBackward(backend, training, teacher.config, 1, context);
    this.#losses = backend.allocate(context);
  }

  positions({ ids }: TrainingExample): number {
    return ids.length;
  }

  start(): number {
    return 0;
  }

  async loss(
    { from, tokens: rows, columns, logits }: HeadChunk,
    { ids }: TrainingExample,
    scale: number,
  ): Promise<number> {
    if (from === 0) await this.#pass.forward(this.#teacher, [ids]);
    const reference = this.#pass.logits(this.#teacher, 0, ids.length, from, rows);
    this.#training.divergence({ reference, logits, loss: this.#losses, rows, columns, scale });
    return await sumOf(this.#backend, this.#losses, rows);
  }
}
