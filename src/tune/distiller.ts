/** One step of distillation into scales, tables and norms: a batch through teacher and student, and Adam. */
import type { TrainingBackend } from "../compute/training.js";
import type { WasmBackend } from "../compute/wasm/backend.js";
import type { TrainingExample } from "../training/data.js";
import type { StateTensor } from "../training/state.js";
import { clipping, type StepResult, type Trainee } from "../training/trainer.js";
import { ModelBackward } from "../transformer/model-backward.js";
import type { CodedModel } from "./coded-model.js";
import { Divergence } from "./divergence.js";
import type { OriginalModel } from "./original.js";
import { Adam } from "./parameter.js";

/** Tables take part in one step of so many: they are few, and their gradient is a fifth of a step's work. */
export const TABLES_EVERY = 4;

export class Distiller implements Trainee {
  readonly adam: Adam;
  readonly #student: CodedModel;
  readonly #studentPass: ModelBackward;
  readonly #divergence: Divergence;

  constructor(
    backend: WasmBackend,
    training: TrainingBackend,
    teacher: OriginalModel,
    student: CodedModel,
    { windows, context }: { readonly windows: number; readonly context: number },
  ) {
    this.#student = student;
    this.#studentPass = new ModelBackward(backend, training, student.config, windows, context);
    this.#divergence = new Divergence(backend, training, teacher, context);
    this.adam = new Adam(student.parameters);
  }

  get state(): StateTensor[] {
    const tensor = (name: string, values: Float32Array): StateTensor => ({
      name,
      length: values.length,
      read: () => values,
      write: (read) => values.set(read),
    });
    return this.adam.parameters.flatMap(({ name, value }) => {
      const { mean, square } = this.adam.moments.get(name)!;
      return [tensor(name, value), tensor(`${name}.mean`, mean), tensor(`${name}.square`, square)];
    });
  }

  async step(
    step: number,
    batch: readonly TrainingExample[],
    rate: number,
    check: (result: StepResult) => void,
    signal?: AbortSignal | undefined,
  ): Promise<StepResult> {
    const tables = step % TABLES_EVERY === 0;
    const result = await this.gradients(batch, tables, signal);
    const { gradientNorm } = result;
    check(result);
    const counts = { scales: step + 1, norm: step + 1, tables: tables ? step / TABLES_EVERY + 1 : 0 };
    const rates = { scales: rate, tables: rate, norm: rate };
    this.adam.step(counts, rates, clipping(gradientNorm));
    return result;
  }

  /** A step without its last part: only gradients change. The loss is KL(teacher || student). */
  async gradients(
    batch: readonly TrainingExample[],
    tables: boolean,
    signal?: AbortSignal | undefined,
  ): Promise<StepResult> {
    const windows = batch.map(({ ids }) => ids);
    const positions = windows.reduce((sum, ids) => sum + ids.length, 0);
    let sum = 0;
    // Of the weights decoded for the last measurement, where a state may have been kept: a run that goes on from
    // there decodes the same ones.
    this.#student.update(tables, { rescale: true });
    await this.#studentPass.run(this.#student, {
      windows,
      loss: async (chunk) => {
        sum += await this.#divergence.loss(chunk, batch[chunk.window], 1 / positions);
      },
      signal,
    });
    await this.#student.finishGradients();
    return { loss: sum / positions, gradientNorm: this.adam.gradientNorm() };
  }

  async measure(examples: readonly TrainingExample[], signal?: AbortSignal | undefined): Promise<number> {
    this.#student.update(false);
    let sum = 0;
    let positions = 0;
    for (const example of examples) {
      const { ids } = example;
      await this.#studentPass.forward(this.#student, [ids], signal);
      await this.#studentPass.chunks(this.#student, 0, ids.length, async (chunk) => {
        sum += await this.#divergence.loss(chunk, example, 1);
      });
      positions += ids.length;
    }
    return sum / positions;
  }
}
