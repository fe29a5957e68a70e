/**
 * One step of distillation: a batch through teacher and student, the divergence of their predictions over the
 * whole vocabulary, gradients, and Adam (Hinton et al. 2015, arXiv 1503.02531, at temperature 1).
 */
import type { Buffer } from "../compute/backend.js";
import type { TrainingBackend } from "../compute/training.js";
import type { WasmBackend } from "../compute/wasm/backend.js";
import type { TrainingExample } from "../training/data.js";
import type { StateTensor } from "../training/state.js";
import { clipping, type StepResult, type Trainee } from "../training/trainer.js";
import { type HeadChunk, ModelBackward } from "../transformer/model-backward.js";
import type { CodedModel } from "./coded-model.js";
import type { OriginalModel } from "./original.js";
import { Adam } from "./parameter.js";

/** Tables take part in one step of so many: they are few, and their gradient is a fifth of a step's work. */
export const TABLES_EVERY = 4;

export class Distiller implements Trainee {
  readonly adam: Adam;
  readonly #backend: WasmBackend;
  readonly #training: TrainingBackend;
  readonly #teacher: OriginalModel;
  readonly #student: CodedModel;
  readonly #teacherPass: ModelBackward;
  readonly #studentPass: ModelBackward;
  readonly #losses: Buffer;

  constructor(
    backend: WasmBackend,
    training: TrainingBackend,
    teacher: OriginalModel,
    student: CodedModel,
    { windows, context }: { readonly windows: number; readonly context: number },
  ) {
    this.#backend = backend;
    this.#training = training;
    this.#teacher = teacher;
    this.#student = student;
    this.#teacherPass = new ModelBackward(backend, training, teacher.config, 1, context);
    this.#studentPass = new ModelBackward(backend, training, student.config, windows, context);
    this.#losses = backend.allocate(context);
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
    const sum = { loss: 0 };
    this.#student.update(tables);
    await this.#studentPass.run(this.#student, {
      windows,
      loss: (chunk) => this.#compare(chunk, windows[chunk.window], 1 / positions, sum),
      signal,
    });
    await this.#student.finishGradients();
    return { loss: sum.loss / positions, gradientNorm: this.adam.gradientNorm() };
  }

  async measure(examples: readonly TrainingExample[], signal?: AbortSignal | undefined): Promise<number> {
    this.#student.update(false);
    const sum = { loss: 0 };
    let positions = 0;
    for (const { ids } of examples) {
      await this.#studentPass.forward(this.#student, [ids], signal);
      await this.#studentPass.chunks(this.#student, 0, ids.length, (chunk) =>
        this.#compare(chunk, ids, 1, sum),
      );
      positions += ids.length;
    }
    return sum.loss / positions;
  }

  free(): void {
    this.#teacherPass.free();
    this.#studentPass.free();
    this.#backend.free(this.#losses);
  }

  async #compare(
    { from, tokens, logits }: HeadChunk,
    ids: Int32Array,
    scale: number,
    sum: { loss: number },
  ): Promise<void> {
    if (from === 0) await this.#teacherPass.forward(this.#teacher, [ids]);
    const reference = this.#teacherPass.logits(this.#teacher, 0, ids.length, from, tokens);
    const columns = this.#student.config.vocabularySize;
    const loss = this.#losses;
    this.#training.divergence({ reference, logits, loss, rows: tokens, columns, scale });
    for (const value of await this.#backend.read(loss, 0, tokens)) sum.loss += value;
  }
}
