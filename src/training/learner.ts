/** Learning by gradients on a backend: an objective's, clipped, and AdamW. */
import type { Backend } from "../compute/backend.js";
import type { TrainingBackend } from "../compute/training.js";
import { type HeadChunk, ModelBackward, type TrainableModel } from "../transformer/model-backward.js";
import type { TrainingExample } from "./data.js";
import type { Objective } from "./objective.js";
import type { StateTensor } from "./state.js";
import { clipping, type StepResult, type Trainee } from "./trainer.js";

export interface AdamWSettings {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Of matrices; norms and biases do not decay. */
  readonly weightDecay: number;
}

/** A model that keeps gradients and moments of what it learns. */
export interface LearningModel extends TrainableModel {
  readonly state: readonly StateTensor[];
  zeroGradients(): void;
  /** Root of the sum of squares of all gradients. */
  gradientNorm(): Promise<number>;
  /** One step of AdamW; `step` counts from 1. */
  update(step: number, learningRate: number, gradientScale: number, settings: AdamWSettings): void;
}

export interface LearnerOptions {
  readonly backend: Backend;
  readonly training: TrainingBackend;
  readonly model: LearningModel;
  readonly objective: Objective;
  readonly optimiser: AdamWSettings;
  /** Examples that go through the model together; a batch takes as many turns as it needs. */
  readonly together: number;
  /** Most tokens of an example. */
  readonly context: number;
}

export class Learner implements Trainee {
  readonly #options: LearnerOptions;
  readonly #pass: ModelBackward;

  constructor(options: LearnerOptions) {
    const { backend, training, model, together, context } = options;
    this.#options = options;
    this.#pass = new ModelBackward(backend, training, model.config, together, context);
  }

  get state(): readonly StateTensor[] {
    return this.#options.model.state;
  }

  async step(
    step: number,
    batch: readonly TrainingExample[],
    rate: number,
    check: (result: StepResult) => void,
    signal?: AbortSignal | undefined,
  ): Promise<StepResult> {
    const result = await this.gradients(batch, signal);
    check(result);
    const { model, optimiser } = this.#options;
    model.update(step + 1, rate, clipping(result.gradientNorm), optimiser);
    return result;
  }

  /** A step without its last part: only gradients change. */
  async gradients(batch: readonly TrainingExample[], signal?: AbortSignal | undefined): Promise<StepResult> {
    const { model, objective, together } = this.#options;
    const positions = this.#positions(batch);
    let sum = 0;
    model.zeroGradients();
    for (let from = 0; from < batch.length; from += together) {
      const examples = batch.slice(from, from + together);
      await this.#pass.run(model, {
        windows: examples.map(({ ids }) => ids),
        starts: examples.map((example) => objective.start(example)),
        loss: async (chunk) => {
          sum += await objective.loss(chunk, examples[chunk.window], 1 / positions);
        },
        signal,
      });
    }
    return { loss: sum / positions, gradientNorm: await model.gradientNorm() };
  }

  async measure(examples: readonly TrainingExample[], signal?: AbortSignal | undefined): Promise<number> {
    const { model, objective } = this.#options;
    let sum = 0;
    for (const example of examples) {
      const { ids } = example;
      await this.#pass.forward(model, [ids], signal);
      const add = async (chunk: HeadChunk) => {
        sum += await objective.loss(chunk, example, 1);
      };
      await this.#pass.chunks(model, 0, ids.length, add, objective.start(example));
    }
    return sum / this.#positions(examples);
  }

  #positions(examples: readonly TrainingExample[]): number {
    return examples.reduce((sum, example) => sum + this.#options.objective.positions(example), 0);
  }
}
