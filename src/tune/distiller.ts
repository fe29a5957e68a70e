/**
 * One step of distillation: a batch through teacher and student, the divergence of their predictions over the
 * whole vocabulary, gradients, and Adam (Hinton et al. 2015, arXiv 1503.02531, at temperature 1).
 */
import type { Buffer } from "../compute/backend.js";
import type { TrainingBackend } from "../compute/training.js";
import type { WasmBackend } from "../compute/wasm/backend.js";
import { type HeadChunk, ModelBackward } from "../transformer/model-backward.js";
import type { CodedModel } from "./coded-model.js";
import type { OriginalModel } from "./original.js";
import { Adam, type ByKind } from "./parameter.js";

export interface StepResult {
  /** Mean KL(teacher || student) of the batch's positions before the step, in nats. */
  readonly loss: number;
  /** Of the gradient in the parameters' units, before clipping. */
  readonly gradientNorm: number;
}

/** Gradients longer than this are shortened to it. */
const CLIP = 1;
/** Tables take part in one step of so many: they are few, and their gradient is a fifth of a step's work. */
export const TABLES_EVERY = 4;

export class Distiller {
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

  /**
   * One optimiser step on `windows`; `step` counts from 0. `check` sees loss and gradient norm before anything
   * changes, and may throw.
   */
  async step(
    step: number,
    windows: readonly Int32Array[],
    rates: ByKind,
    check: (result: StepResult) => void,
    signal?: AbortSignal | undefined,
  ): Promise<StepResult> {
    const tables = step % TABLES_EVERY === 0;
    const result = await this.gradients(windows, tables, signal);
    const { gradientNorm } = result;
    check(result);
    const counts = { scales: step + 1, norm: step + 1, tables: tables ? step / TABLES_EVERY + 1 : 0 };
    this.adam.step(counts, rates, gradientNorm > CLIP ? CLIP / gradientNorm : 1);
    return result;
  }

  /** A step without its last part: only gradients change. */
  async gradients(
    windows: readonly Int32Array[],
    tables: boolean,
    signal?: AbortSignal | undefined,
  ): Promise<StepResult> {
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

  /** Mean divergence on `windows`, nothing changed. */
  async measure(windows: readonly Int32Array[], signal?: AbortSignal | undefined): Promise<number> {
    this.#student.update(false);
    const sum = { loss: 0 };
    let positions = 0;
    for (const ids of windows) {
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
