/** A dense model of which everything is trained: its tensors, their gradients and AdamW's moments on a backend. */
import type { ModelConfig } from "../checkpoint/config.js";
import { expectedTensors } from "../checkpoint/tensors.js";
import type { Backend, Buffer } from "../compute/backend.js";
import { DenseLinear } from "../compute/linear.js";
import type { TrainingBackend } from "../compute/training.js";
import type { AdamWSettings, LearningModel } from "../training/learner.js";
import type { StateTensor } from "../training/state.js";
import type { LayerGradient, TrainableLayer } from "../transformer/layer-backward.js";
import type { OpenLayer, TrainableModel } from "../transformer/model-backward.js";
import {
  EMBEDDING_NAME,
  HEAD_NAME,
  LAYER_LINEARS,
  layerLinears,
  layerNorms,
} from "../transformer/weights.js";

interface TrainedTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly value: Buffer;
  readonly gradient: Buffer;
  readonly mean: Buffer;
  readonly square: Buffer;
}

export class DenseModel implements LearningModel {
  readonly embedding: DenseLinear;
  readonly head: DenseLinear;
  readonly finalNorm: Buffer;
  readonly gradient: TrainableModel["gradient"];
  readonly #backend: Backend;
  readonly #training: TrainingBackend;
  readonly #tensors = new Map<string, TrainedTensor>();
  readonly #layers: readonly OpenLayer[];

  /** `tensors`: every tensor of the configuration with its first values. */
  constructor(
    backend: Backend,
    training: TrainingBackend,
    readonly config: ModelConfig,
    tensors: Iterable<readonly [name: string, values: Float32Array]>,
  ) {
    this.#backend = backend;
    this.#training = training;
    const shapes = expectedTensors(config);
    for (const [name, values] of tensors) {
      const [value, gradient, mean, square] = [1, 2, 3, 4].map(() => backend.allocate(values.length));
      backend.write(value, values);
      this.#tensors.set(name, { name, shape: shapes.get(name)!, value, gradient, mean, square });
    }
    const { vocabularySize, hiddenSize, tiedEmbeddings } = config;
    const whole = (name: string) =>
      new DenseLinear(backend, vocabularySize, hiddenSize, this.#tensor(`${name}.weight`).value);
    this.embedding = whole(EMBEDDING_NAME);
    this.head = tiedEmbeddings ? this.embedding : whole(HEAD_NAME);
    const norm = this.#tensor("model.norm.weight");
    this.finalNorm = norm.value;
    this.gradient = {
      embedding: { weight: this.#tensor(`${EMBEDDING_NAME}.weight`).gradient },
      head: { weight: this.#tensors.get(`${HEAD_NAME}.weight`)?.gradient },
      finalNorm: norm.gradient,
    };
    this.#layers = Array.from({ length: config.layers }, (_, index) => this.#layer(index));
  }

  async openLayer(index: number): Promise<OpenLayer> {
    return this.#layers[index];
  }

  async closeLayer(): Promise<void> {}

  zeroGradients(): void {
    for (const { gradient } of this.#tensors.values()) this.#training.zero(gradient, gradient.length);
  }

  async gradientNorm(): Promise<number> {
    let sum = 0;
    for (const { gradient } of this.#tensors.values())
      sum += await this.#training.sumSquares(gradient, gradient.length);
    return Math.sqrt(sum);
  }

  /** One step of AdamW; `step` counts from 1. */
  update(step: number, learningRate: number, gradientScale: number, settings: AdamWSettings): void {
    for (const { shape, value: parameter, gradient, mean, square } of this.#tensors.values())
      this.#training.adamW({
        ...{ parameter, gradient, mean, square, length: parameter.length, step, learningRate, gradientScale },
        ...settings,
        weightDecay: shape.length > 1 ? settings.weightDecay : 0,
      });
  }

  get state(): StateTensor[] {
    const tensor = (name: string, buffer: Buffer): StateTensor => ({
      name,
      length: buffer.length,
      read: () => this.#backend.read(buffer),
      write: (values) => this.#backend.write(buffer, values),
    });
    return [...this.#tensors.values()].flatMap(({ name, value, mean, square }) => [
      tensor(name, value),
      tensor(`${name}.mean`, mean),
      tensor(`${name}.square`, square),
    ]);
  }

  /** The tensors as they are now, in the order of the forward pass. */
  get tensors(): { name: string; shape: readonly number[]; read: () => Promise<Float32Array> }[] {
    return [...this.#tensors.values()].map(({ name, shape, value }) => ({
      name,
      shape,
      read: () => this.#backend.read(value),
    }));
  }

  #tensor(name: string): TrainedTensor {
    const tensor = this.#tensors.get(name);
    if (!tensor) throw new RangeError(`${name} is missing`);
    return tensor;
  }

  #layer(index: number): OpenLayer {
    const specs = layerLinears(this.config, index);
    const norms = layerNorms(this.config, index);
    const part = (key: "value" | "gradient") =>
      Object.fromEntries(Object.entries(norms).map(([norm, name]) => [norm, this.#tensor(name)[key]]));
    const linears = LAYER_LINEARS.map((kind) => {
      const { name, outputs, inputs } = specs[kind];
      const weight = this.#tensor(`${name}.weight`);
      const bias = this.#tensors.get(`${name}.bias`);
      return {
        kind,
        linear: new DenseLinear(this.#backend, outputs, inputs, weight.value, bias?.value),
        gradient: { weight: weight.gradient, bias: bias?.gradient },
      };
    });
    const matrices = Object.fromEntries(linears.map((l) => [l.kind, l.linear]));
    const layer = { ...part("value"), ...matrices } as unknown as TrainableLayer;
    const gradient: LayerGradient = {
      ...part("gradient"),
      linears: Object.fromEntries(linears.map((l) => [l.kind, l.gradient])),
    };
    return { layer, gradient };
  }
}
