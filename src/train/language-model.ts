/** Learning to predict the next token: cross-entropy, clipped gradients, AdamW. */
import type { Buffer } from "../compute/backend.js";
import type { TrainingBackend } from "../compute/training.js";
import type { WasmBackend } from "../compute/wasm/backend.js";
import { nextTokenTargets, type TrainingExample } from "../training/data.js";
import type { StateTensor } from "../training/state.js";
import { clipping, type StepResult, type Trainee } from "../training/trainer.js";
import { type HeadChunk, ModelBackward } from "../transformer/model-backward.js";
import type { AdamWSettings, DenseModel } from "./dense-model.js";

/** As GPT-3 was trained (Brown et al. 2020, appendix B). */
const ADAMW: AdamWSettings = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1 };

export class LanguageModel implements Trainee {
  readonly #backend: WasmBackend;
  readonly #training: TrainingBackend;
  readonly #model: DenseModel;
  readonly #pass: ModelBackward;
  readonly #losses: Buffer;

  constructor(
    backend: WasmBackend,
    training: TrainingBackend,
    model: DenseModel,
    { batch, context }: { readonly batch: number; readonly context: number },
  ) {
    this.#backend = backend;
    this.#training = training;
    this.#model = model;
    this.#pass = new ModelBackward(backend, training, model.config, batch, context);
    this.#losses = backend.allocate(context);
  }

  get state(): StateTensor[] {
    return this.#model.state;
  }

  async step(
    step: number,
    batch: readonly TrainingExample[],
    rate: number,
    check: (result: StepResult) => void,
    signal?: AbortSignal | undefined,
  ): Promise<StepResult> {
    const targets = batch.map(nextTokenTargets);
    const scored = targets.reduce((sum, list) => sum + list.filter((id) => id >= 0).length, 0);
    const sum = { loss: 0 };
    this.#model.zeroGradients();
    await this.#pass.run(this.#model, {
      windows: batch.map(({ ids }) => ids),
      loss: (chunk) => this.#loss(chunk, targets[chunk.window], 1 / scored, sum),
      signal,
    });
    const gradientNorm = await this.#model.gradientNorm();
    const result = { loss: sum.loss / scored, gradientNorm };
    check(result);
    this.#model.update(step + 1, rate, clipping(gradientNorm), ADAMW);
    return result;
  }

  async measure(examples: readonly TrainingExample[], signal?: AbortSignal | undefined): Promise<number> {
    const sum = { loss: 0 };
    let scored = 0;
    for (const example of examples) {
      const targets = nextTokenTargets(example);
      const { ids } = example;
      await this.#pass.forward(this.#model, [ids], signal);
      await this.#pass.chunks(this.#model, 0, ids.length, (chunk) => this.#loss(chunk, targets, 1, sum));
      scored += targets.filter((id) => id >= 0).length;
    }
    return sum.loss / scored;
  }

  async #loss(
    { from, tokens, logits }: HeadChunk,
    targets: Int32Array,
    scale: number,
    sum: { loss: number },
  ): Promise<void> {
    this.#training.crossEntropy({
      logits,
      targets: targets.subarray(from, from + tokens),
      loss: this.#losses,
      rows: tokens,
      columns: this.#model.config.vocabularySize,
      scale,
    });
    for (const value of await this.#backend.read(this.#losses, 0, tokens)) sum.loss += value;
  }
}
