/** A frozen model with adapters that learn: A and B of every matrix, their gradients and moments on a backend. */
import { type Adapter, adaptableMatrices } from "../adapter/adapter.js";
import type { ModelConfig } from "../checkpoint/config.js";
import { AdapterScratch, LearningAdaptedLinear, type LowRankPair } from "../compute/adapted-linear.js";
import type { Buffer } from "../compute/backend.js";
import type { DenseLinear } from "../compute/linear.js";
import type { TrainingBackend } from "../compute/training.js";
import type { WasmBackend } from "../compute/wasm/backend.js";
import { Random } from "../random.js";
import { type LearnedTensor, LearnedTensors } from "../training/learned-tensors.js";
import type { AdamWSettings, LearningModel } from "../training/learner.js";
import type { StateTensor } from "../training/state.js";
import type { TrainableLayer } from "../transformer/layer-backward.js";
import type { OpenLayer } from "../transformer/model-backward.js";
import { LAYER_LINEARS, layerLinears } from "../transformer/weights.js";
import type { FrozenModel } from "./frozen-model.js";

interface LearnedPair {
  readonly a: LearnedTensor;
  readonly b: LearnedTensor;
  /** B times the scale: what the forward pass multiplies by. */
  readonly sb: Buffer;
}

/** Numbers to start from: B is 0, so that the model is what it was, and A uniform within 1 / √inputs, as PEFT's. */
export function initialAdapter(
  config: ModelConfig,
  { rank, alpha, seed }: { readonly rank: number; readonly alpha: number; readonly seed: number },
): Adapter {
  const random = new Random(seed);
  const pairs = new Map<string, LowRankPair>();
  for (const [name, [outputs, inputs]] of adaptableMatrices(config)) {
    const bound = 1 / Math.sqrt(inputs);
    const a = Float32Array.from({ length: rank * inputs }, () => bound * (2 * random.uniform() - 1));
    pairs.set(name, { rank, a, b: new Float32Array(outputs * rank) });
  }
  return { rank, scale: alpha / rank, pairs };
}

export class AdaptedModel implements LearningModel {
  readonly gradient = {};
  readonly embedding: DenseLinear;
  readonly head: DenseLinear;
  readonly finalNorm: Buffer;
  readonly #backend: WasmBackend;
  readonly #training: TrainingBackend;
  readonly #learned: LearnedTensors;
  readonly #base: FrozenModel;
  readonly #rank: number;
  readonly #scale: number;
  readonly #pairs = new Map<string, LearnedPair>();
  readonly #layers: readonly TrainableLayer[];

  /** `adapter`: what to start from, a pair for every matrix that can have one. */
  constructor(
    backend: WasmBackend,
    training: TrainingBackend,
    readonly config: ModelConfig,
    base: FrozenModel,
    { rank, scale, pairs }: Adapter,
  ) {
    this.#backend = backend;
    this.#training = training;
    this.#learned = new LearnedTensors(backend, training);
    this.#base = base;
    this.#rank = rank;
    this.#scale = scale;
    this.embedding = base.embedding;
    this.head = base.head;
    this.finalNorm = base.finalNorm;
    for (const [name, { a, b }] of pairs) {
      const pair = {
        a: this.#learned.add(`${name}.lora_A`, a, true),
        b: this.#learned.add(`${name}.lora_B`, b, true),
        sb: backend.allocate(b.length),
      };
      this.#pairs.set(name, pair);
    }
    this.#scaleAll();
    const scratch = new AdapterScratch(backend);
    this.#layers = base.layers.map((layer, index) => {
      const specs = layerLinears(config, index);
      const linears = LAYER_LINEARS.map((kind) => {
        const { a, b, sb } = this.#pairs.get(specs[kind].name)!;
        const learning = { gradient: { dA: a.gradient, dB: b.gradient }, scale };
        const pair = { rank, a: a.value, sb };
        return [kind, new LearningAdaptedLinear(backend, layer[kind], pair, scratch, learning)];
      });
      return { ...layer, ...Object.fromEntries(linears) } as TrainableLayer;
    });
  }

  async openLayer(index: number): Promise<OpenLayer> {
    await this.#base.openLayer(index);
    // The adapters keep their gradients themselves.
    return { layer: this.#layers[index], gradient: {} };
  }

  async closeLayer(): Promise<void> {}

  get state(): StateTensor[] {
    return this.#learned.state(() => this.#scaleAll());
  }

  zeroGradients(): void {
    this.#learned.zeroGradients();
  }

  gradientNorm(): Promise<number> {
    return this.#learned.gradientNorm();
  }

  update(step: number, learningRate: number, gradientScale: number, settings: AdamWSettings): void {
    this.#learned.update(step, learningRate, gradientScale, settings);
    this.#scaleAll();
  }

  /** The adapter as it is now. */
  async pairs(): Promise<Map<string, LowRankPair>> {
    const pairs = new Map<string, LowRankPair>();
    for (const [name, { a, b }] of this.#pairs)
      pairs.set(name, {
        rank: this.#rank,
        a: await this.#backend.read(a.value),
        b: await this.#backend.read(b.value),
      });
    return pairs;
  }

  setPairs(pairs: Adapter["pairs"]): void {
    for (const [name, { a, b }] of pairs) {
      const pair = this.#pairs.get(name)!;
      this.#backend.write(pair.a.value, a);
      this.#backend.write(pair.b.value, b);
    }
    this.#scaleAll();
  }

  #scaleAll(): void {
    for (const { b, sb } of this.#pairs.values()) {
      this.#backend.copy(b.value, 0, sb, 0, sb.length);
      this.#training.scale(sb, this.#scale, sb.length);
    }
  }
}
