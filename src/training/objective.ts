/** What a model is trained for, seen from its logits. */
import type { Backend, Buffer } from "../compute/backend.js";
import type { TrainingBackend } from "../compute/training.js";
import type { HeadChunk } from "../transformer/model-backward.js";
import { nextTokenTargets, type TrainingExample } from "./data.js";

export interface Objective {
  /** Positions of an example that count. */
  positions(example: TrainingExample): number;
  /** The first of them. */
  start(example: TrainingExample): number;
  /**
   * Sum of the losses of a chunk's positions, in nats; its logits are overwritten by the gradient of `scale` times
   * that sum. Chunks of an example come in order.
   */
  loss(chunk: HeadChunk, example: TrainingExample, scale: number): Promise<number>;
}

/** Cross-entropy of the next token where it is scored. */
export class NextToken implements Objective {
  readonly #backend: Backend;
  readonly #training: TrainingBackend;
  readonly #losses: Buffer;

  /** `context`: most tokens of an example. */
  constructor(backend: Backend, training: TrainingBackend, context: number) {
    this.#backend = backend;
    this.#training = training;
    this.#losses = backend.allocate(context);
  }

  positions({ scored }: TrainingExample): number {
    // The first is never scored.
    return scored.reduce((sum, x) => sum + x, 0);
  }

  start({ scored }: TrainingExample): number {
    // A token is predicted one position before its own.
    return Math.max(0, scored.indexOf(1) - 1);
  }

  async loss(
    { from, tokens: rows, columns, logits }: HeadChunk,
    example: TrainingExample,
    scale: number,
  ): Promise<number> {
    const targets = nextTokenTargets(example).subarray(from, from + rows);
    this.#training.crossEntropy({ logits, targets, loss: this.#losses, rows, columns, scale });
    return await sumOf(this.#backend, this.#losses, rows);
  }
}

/** Sum of the first `length` values of a buffer. */
export async function sumOf(backend: Backend, buffer: Buffer, length: number): Promise<number> {
  let sum = 0;
  for (const value of await backend.read(buffer, 0, length)) sum += value;
  return sum;
}
