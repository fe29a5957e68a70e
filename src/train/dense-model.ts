/** A dense model that is trained: its tensors and, of those that learn, gradients and AdamW's moments on a backend. */
import type { ModelConfig } from "../checkpoint/config.js";
import { expectedTensors } from "../checkpoint/tensors.js";
import type { Backend, Buffer } from "../compute/backend.js";
import { DenseLinear } from "../compute/linear.js";
import type { TrainingBackend } from "../compute/training.js";
import { upload } from "../compute/upload.js";
import { LearnedTensors } from "../training/learned-tensors.js";
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

interface ModelTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly value: Buffer;
  /** Absent where it does not learn. */
  readonly gradient?: Buffer | undefined;
}

type NamedValues = readonly [name: string, values: Float32Array];

export class DenseModel implements LearningModel {
  readonly embedding: DenseLinear;
  readonly head: DenseLinear;
  readonly finalNorm: Buffer;
  readonly gradient: TrainableModel["gradient"];
  readonly #backend: Backend;
  readonly #learned: LearnedTensors;
  readonly #tensors: ReadonlyMap<string, ModelTensor>;
  readonly #layers: readonly OpenLayer[];

  /**
   * `tensors`: every tensor of the configuration with its first values, each taken over before the next is asked for;
   * all learn whose names `learns` says so of.
   */
  static async create(
    backend: Backend,
    training: TrainingBackend,
    config: ModelConfig,
    tensors: Iterable<NamedValues> | AsyncIterable<NamedValues>,
    learns: (name: string) => boolean = () => true,
  ): Promise<DenseModel> {
    const learned = new LearnedTensors(backend, training);
    const made = new Map<string, ModelTensor>();
    const shapes = expectedTensors(config);
    for await (const [name, values] of tensors) {
      const shape = shapes.get(name)!;
      const tensor = learns(name)
        ? learned.add(name, values, shape.length > 1)
        : { name, value: upload(backend, values) };
      made.set(name, { ...tensor, shape });
    }
    return new DenseModel(backend, config, learned, made);
  }

  private constructor(
    backend: Backend,
    readonly config: ModelConfig,
    learned: LearnedTensors,
    tensors: ReadonlyMap<string, ModelTensor>,
  ) {
    this.#backend = backend;
    this.#learned = learned;
    this.#tensors = tensors;
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
    this.#learned.zeroGradients();
  }

  gradientNorm(): Promise<number> {
    return this.#learned.gradientNorm();
  }

  update(step: number, learningRate: number, gradientScale: number, settings: AdamWSettings): void {
    this.#learned.update(step, learningRate, gradientScale, settings);
  }

  get state(): StateTensor[] {
    return this.#learned.state();
  }

  /** The tensors as they are now, in the order in which they were given. */
  get tensors(): {
    name: string;
    shape: readonly number[];
    learns: boolean;
    read: () => Promise<Float32Array>;
  }[] {
    return [...this.#tensors.values()].map(({ name, shape, value, gradient }) => ({
      name,
      shape,
      learns: gradient !== undefined,
      read: () => this.#backend.read(value),
    }));
  }

  #tensor(name: string): ModelTensor {
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
