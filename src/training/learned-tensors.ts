/** Tensors that AdamW changes: values, gradients and moments on a backend. */
import type { Backend, Buffer } from "../compute/backend.js";
import type { TrainingBackend } from "../compute/training.js";
import type { AdamWSettings } from "./learner.js";
import type { StateTensor } from "./state.js";

export interface LearnedTensor {
  readonly name: string;
  readonly value: Buffer;
  readonly gradient: Buffer;
  readonly mean: Buffer;
  readonly square: Buffer;
  /** Whether weight decay is for it: matrices, not norms and biases. */
  readonly decays: boolean;
}

export class LearnedTensors {
  readonly #backend: Backend;
  readonly #training: TrainingBackend;
  readonly #tensors: LearnedTensor[] = [];

  constructor(backend: Backend, training: TrainingBackend) {
    this.#backend = backend;
    this.#training = training;
  }

  /** A new one, with the values given. */
  add(name: string, values: Float32Array, decays: boolean): LearnedTensor {
    const allocate = () => this.#backend.allocate(values.length);
    const [value, gradient, mean, square] = [allocate(), allocate(), allocate(), allocate()];
    this.#backend.write(value, values);
    const tensor = { name, value, gradient, mean, square, decays };
    this.#tensors.push(tensor);
    return tensor;
  }

  zeroGradients(): void {
    for (const { gradient } of this.#tensors) this.#training.zero(gradient, gradient.length);
  }

  /** Root of the sum of squares of all gradients. */
  async gradientNorm(): Promise<number> {
    let sum = 0;
    for (const { gradient } of this.#tensors)
      sum += await this.#training.sumSquares(gradient, gradient.length);
    return Math.sqrt(sum);
  }

  /** One step of AdamW; `step` counts from 1. */
  update(step: number, learningRate: number, gradientScale: number, settings: AdamWSettings): void {
    for (const { value: parameter, gradient, mean, square, decays } of this.#tensors)
      this.#training.adamW({
        ...{ parameter, gradient, mean, square, length: parameter.length, step, learningRate, gradientScale },
        ...settings,
        weightDecay: decays ? settings.weightDecay : 0,
      });
  }

  /** Everything that a step changes; `written` is called after each tensor that is set from a state. */
  state(written: () => void = () => {}): StateTensor[] {
    const tensor = (name: string, buffer: Buffer): StateTensor => ({
      name,
      length: buffer.length,
      read: () => this.#backend.read(buffer),
      write: (values) => {
        this.#backend.write(buffer, values);
        written();
      },
    });
    return this.#tensors.flatMap(({ name, value, mean, square }) => [
      tensor(name, value),
      tensor(`${name}.mean`, mean),
      tensor(`${name}.square`, square),
    ]);
  }
}
