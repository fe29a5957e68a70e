/**
 * A PocketLLM folder as a model that can be trained: codes stay, row scales, tables and norms are parameters.
 * A layer's weights are decoded when it is opened; where they are large, into buffers that all layers share:
 * memory holds the codes, one dense layer, and embedding and head then. Row scales get their gradients from each matrix's output, at no
 * cost; tables need the gradient of all weights, a fifth of a step, and so take part in some steps only.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { CodedMatrix } from "../codec/coded.js";
import { TrainableTrellis } from "../codec/trellis/trainable.js";
import type { Buffer } from "../compute/backend.js";
import { DenseLinear } from "../compute/linear.js";
import type { TrainingBackend } from "../compute/training.js";
import type { WasmBackend } from "../compute/wasm/backend.js";
import type { PocketFolder } from "../container/folder.js";
import { type CodedLayer, isTiered, matricesOf } from "../container/layer.js";
import { InputError } from "../errors.js";
import type { LayerGradient, TrainableLayer } from "../transformer/layer-backward.js";
import type { OpenLayer, Pass, TrainableModel } from "../transformer/model-backward.js";
import {
  EMBEDDING_NAME,
  HEAD_NAME,
  LAYER_LINEARS,
  type LayerLinear,
  layerFloats,
  layerLinears,
  layerNorms,
  wholeFloats,
} from "../transformer/weights.js";
import { commonSize, ownSizes, type Parameter } from "./parameter.js";

/**
 * Decoded layers up to this size are kept from the forward to the backward pass (SmolLM2-135M: 425 MB), which saves
 * decoding them again and lets steps rescale them; larger ones are decoded twice a step, into buffers that all layers share.
 */
const RESIDENT_BYTES = 2 ** 29;

function staysResident(config: ModelConfig, residentBytes: number): boolean {
  return 4 * layerFloats(config) * config.layers <= residentBytes;
}

/** What a CodedModel takes while tables learn, its codes apart. */
export function codedModelBytes(config: ModelConfig): number {
  const layers = staysResident(config, RESIDENT_BYTES) ? config.layers : 1;
  // Weights, and the gradients of embedding, head and one layer.
  return 4 * (layerFloats(config) * (layers + 1) + 2 * wholeFloats(config));
}

/** The parts of a coded layer, each at its first row. */
interface TrainableCoded {
  readonly layer: CodedLayer;
  readonly parts: readonly { readonly first: number; readonly matrix: TrainableTrellis }[];
}

/** A norm: its values here, what the transformer uses and its gradient on the backend. */
interface TrainableNorm {
  readonly parameter: Parameter;
  readonly value: Buffer;
  readonly gradient: Buffer;
}

type DenseLayer = TrainableLayer & { readonly [K in LayerLinear]: DenseLinear };

interface LayerParts {
  readonly linears: Readonly<Record<LayerLinear, TrainableCoded>>;
  readonly layer: DenseLayer;
  readonly norms: Readonly<Record<string, TrainableNorm>>;
  readonly biases: { readonly [K in LayerLinear]?: Float32Array | undefined };
}

export class CodedModel implements TrainableModel {
  readonly config: ModelConfig;
  readonly parameters: readonly Parameter[];
  readonly embedding: DenseLinear;
  readonly head: DenseLinear;
  readonly finalNorm: Buffer;
  readonly #backend: WasmBackend;
  readonly #training: TrainingBackend;
  readonly #layers: readonly LayerParts[];
  readonly #resident: boolean;
  readonly #whole: readonly { name: string; coded: TrainableCoded; dense: DenseLinear; rowFactor: Buffer }[];
  readonly #norm: TrainableNorm;
  /** Gradients of a layer's weights, and of embedding and head: while tables take part. */
  #dWeights: { readonly layer: Readonly<Record<LayerLinear, Buffer>>; readonly whole: Buffer[] } | undefined;
  readonly #rowFactors: Readonly<Record<LayerLinear, Buffer>>;
  readonly #biasSums: Readonly<Record<LayerLinear, Buffer>>;
  /** By layer: whether its weights are not yet those of the parameters. */
  readonly #outdated: boolean[];
  #rescale = false;

  /** InputError when the folder has matrices of another method: only "trellis" can be trained. */
  static async open(
    backend: WasmBackend,
    training: TrainingBackend,
    folder: PocketFolder,
    residentBytes = RESIDENT_BYTES,
  ): Promise<CodedModel> {
    const parts = await readParts(backend, folder, residentBytes);
    return new CodedModel(backend, training, folder.config, parts);
  }

  private constructor(
    backend: WasmBackend,
    training: TrainingBackend,
    config: ModelConfig,
    { layers, resident, embedding, head, norm, parameters }: Awaited<ReturnType<typeof readParts>>,
  ) {
    this.config = config;
    this.#backend = backend;
    this.#training = training;
    this.#layers = layers;
    this.#resident = resident;
    this.#outdated = layers.map(() => true);
    this.#norm = norm;
    this.parameters = parameters;
    this.finalNorm = norm.value;
    const specs = layerLinears(config, 0);
    const outputs = (kind: LayerLinear) => backend.allocate(specs[kind].outputs);
    this.#rowFactors = byKind(outputs);
    this.#biasSums = byKind(outputs);
    const whole = [{ name: EMBEDDING_NAME, coded: embedding }];
    if (head) whole.push({ name: HEAD_NAME, coded: head });
    const { vocabularySize, hiddenSize } = config;
    this.#whole = whole.map(({ name, coded }) => ({
      name,
      coded,
      dense: new DenseLinear(
        backend,
        vocabularySize,
        hiddenSize,
        backend.allocate(vocabularySize * hiddenSize),
      ),
      rowFactor: backend.allocate(vocabularySize),
    }));
    this.embedding = this.#whole[0].dense;
    this.head = this.#whole[this.#whole.length - 1].dense;
    this.update(false);
  }

  get gradient(): TrainableModel["gradient"] {
    const [embedding, head] = this.#whole.map(({ rowFactor }, i) =>
      this.#dWeights ? { weight: this.#dWeights.whole[i] } : { rowFactor },
    );
    return { embedding, head, finalNorm: this.#norm.gradient };
  }

  async openLayer(index: number, pass: Pass): Promise<OpenLayer> {
    const { linears, layer, norms, biases } = this.#layers[index];
    if (this.#outdated[index] || !this.#resident) {
      for (const kind of LAYER_LINEARS) this.#write(linears[kind], layer[kind]);
      this.#outdated[index] = false;
    }
    const dWeights = this.#dWeights;
    const gradients = dWeights ? Object.values(dWeights.layer) : Object.values(this.#rowFactors);
    if (pass === "backward")
      for (const buffer of [...gradients, ...Object.values(this.#biasSums)])
        this.#training.zero(buffer, buffer.length);
    const gradient: LayerGradient = {
      linears: byKind((kind) => {
        if (dWeights) return { weight: dWeights.layer[kind] };
        return { rowFactor: this.#rowFactors[kind], bias: biases[kind] && this.#biasSums[kind] };
      }),
      ...Object.fromEntries(Object.entries(norms).map(([key, norm]) => [key, norm.gradient])),
    };
    return { layer, gradient };
  }

  async closeLayer(index: number, pass: Pass): Promise<void> {
    if (pass === "forward") return;
    const { linears, norms, biases } = this.#layers[index];
    for (const kind of LAYER_LINEARS) {
      if (this.#dWeights) backwardAll(linears[kind], this.#dWeights.layer[kind]);
      else {
        const factors = await this.#backend.read(this.#rowFactors[kind]);
        const bias = biases[kind];
        // y has the bias in it, which the scales do not touch.
        if (bias)
          for (const [r, sum] of (await this.#backend.read(this.#biasSums[kind])).entries())
            factors[r] -= bias[r] * sum;
        addFactors(linears[kind], factors);
      }
    }
    for (const norm of Object.values(norms)) await this.#readNorm(norm);
  }

  /** After a batch's backward pass: the gradients of embedding, head and final norm become those of parameters. */
  async finishGradients(): Promise<void> {
    for (const [i, { coded, rowFactor }] of this.#whole.entries()) {
      if (this.#dWeights) backwardAll(coded, this.#dWeights.whole[i]);
      else addFactors(coded, await this.#backend.read(rowFactor));
    }
    await this.#readNorm(this.#norm);
  }

  /**
   * Takes changed parameters over and sets all gradients to 0: before a batch. Tables get a gradient from it only
   * with `tables`: room for the gradients of all weights is held then. `rescale`: weights that are held are those of
   * the last time with new scales, equal to decoded ones but for rounding, where only scales have changed.
   */
  update(tables: boolean, { rescale = false } = {}): void {
    this.#setTables(tables);
    this.#rescale = rescale;
    this.#outdated.fill(true);
    for (const { gradient } of this.parameters) gradient.fill(0);
    for (const { linears, norms } of this.#layers) {
      for (const kind of LAYER_LINEARS) for (const { matrix } of linears[kind].parts) matrix.update();
      for (const norm of Object.values(norms)) this.#writeNorm(norm);
    }
    for (const { coded, dense, rowFactor } of this.#whole) {
      for (const { matrix } of coded.parts) matrix.update();
      this.#write(coded, dense);
      this.#training.zero(rowFactor, rowFactor.length);
    }
    this.#writeNorm(this.#norm);
  }

  #write({ parts }: TrainableCoded, { weight }: DenseLinear): void {
    for (const { matrix, first } of parts)
      if (this.#rescale && this.#resident) matrix.refresh(weight, first);
      else matrix.decode(weight, first);
  }

  #setTables(tables: boolean): void {
    const { layer, whole } = this.#dWeights ?? {};
    if (!tables) {
      for (const buffer of [...Object.values(layer ?? {}), ...(whole ?? [])]) this.#backend.free(buffer);
      this.#dWeights = undefined;
      return;
    }
    const specs = layerLinears(this.config, 0);
    this.#dWeights ??= {
      layer: byKind((kind) => this.#backend.allocate(specs[kind].outputs * specs[kind].inputs)),
      whole: this.#whole.map(({ dense }) => this.#backend.allocate(dense.weight.length)),
    };
    for (const buffer of this.#dWeights.whole) this.#training.zero(buffer, buffer.length);
  }

  /** Every coded layer with its trained numbers, by tensor name without ".weight". */
  *codedLayers(): Generator<[name: string, layer: CodedLayer]> {
    for (const { name, coded } of this.#whole) yield [name, rebuilt(coded)];
    for (const [index, { linears }] of this.#layers.entries()) {
      const specs = layerLinears(this.config, index);
      for (const kind of LAYER_LINEARS) yield [specs[kind].name, rebuilt(linears[kind])];
    }
  }

  /** Every norm by tensor name. */
  norms(): Map<string, Float32Array> {
    return new Map(this.parameters.filter((p) => p.kind === "norm").map((p) => [p.name, p.value]));
  }

  async #readNorm({ parameter, gradient }: TrainableNorm): Promise<void> {
    const values = await this.#backend.read(gradient);
    for (let i = 0; i < values.length; i++) parameter.gradient[i] += values[i];
    this.#training.zero(gradient, gradient.length);
  }

  #writeNorm({ parameter, value }: TrainableNorm): void {
    this.#backend.write(value, parameter.value);
  }
}

function byKind<T>(make: (kind: LayerLinear) => T): Record<LayerLinear, T> {
  return Object.fromEntries(LAYER_LINEARS.map((kind) => [kind, make(kind)])) as Record<LayerLinear, T>;
}

/** The gradients of scales and tables from that of the weights. */
function backwardAll({ parts }: TrainableCoded, dWeight: Buffer): void {
  for (const { matrix, first } of parts) matrix.backward(dWeight, first);
}

/** The gradient of the scales from that of a factor on each row. */
function addFactors({ parts }: TrainableCoded, factors: Float32Array): void {
  for (const { matrix, first } of parts)
    for (const [r, scale] of matrix.scales.entries())
      if (scale !== 0) matrix.dScales[r] += factors[first + r] / scale;
}

function rebuilt({ layer, parts }: TrainableCoded): CodedLayer {
  if (!isTiered(layer)) return parts[0].matrix.coded();
  return { ...layer, tiers: layer.tiers.map(({ rows }, i) => ({ rows, matrix: parts[i].matrix.coded() })) };
}

async function readParts(backend: WasmBackend, folder: PocketFolder, residentBytes: number) {
  const { config } = folder;
  const parameters: Parameter[] = [];
  const coded = async (name: string): Promise<TrainableCoded> => {
    if (!folder.layers.has(name))
      throw new InputError(`${name} is not coded: only folders made by compress can be tuned`);
    const layer = await folder.coded(name);
    let first = 0;
    const parts = matricesOf(layer).map((matrix, i, all) => {
      const part = trainable(backend, matrix, name);
      parameters.push(...parametersOf(part, all.length > 1 ? `${name}.${i}` : name));
      first += matrix.rows;
      return { first: first - matrix.rows, matrix: part };
    });
    return { layer, parts };
  };
  const norm = async (name: string): Promise<TrainableNorm> => {
    const value = await folder.plain(name);
    const parameter: Parameter = {
      name,
      kind: "norm",
      value,
      gradient: new Float32Array(value.length),
      unit: ownSizes(value),
    };
    parameters.push(parameter);
    const allocate = () => backend.allocate(value.length);
    return { parameter, value: allocate(), gradient: allocate() };
  };
  const embedding = await coded(EMBEDDING_NAME);
  const shapes = layerLinears(config, 0);
  const weights = () => byKind((kind) => backend.allocate(shapes[kind].outputs * shapes[kind].inputs));
  const resident = staysResident(config, residentBytes);
  const shared = weights();
  const layers: LayerParts[] = [];
  for (let index = 0; index < config.layers; index++) {
    const specs = layerLinears(config, index);
    const own = index === 0 || !resident ? shared : weights();
    const norms: Record<string, TrainableNorm> = {};
    for (const [key, name] of Object.entries(layerNorms(config, index))) norms[key] = await norm(name);
    const linears = {} as Record<LayerLinear, TrainableCoded>;
    const dense = {} as Record<LayerLinear, DenseLinear>;
    const biases: { [K in LayerLinear]?: Float32Array | undefined } = {};
    for (const kind of LAYER_LINEARS) {
      const { name, outputs, inputs, bias } = specs[kind];
      linears[kind] = await coded(name);
      if (bias) biases[kind] = await folder.plain(`${name}.bias`);
      dense[kind] = new DenseLinear(backend, outputs, inputs, own[kind], biases[kind]);
    }
    const buffers = Object.fromEntries(Object.entries(norms).map(([key, { value }]) => [key, value]));
    layers.push({ linears, norms, biases, layer: { ...buffers, ...dense } as unknown as DenseLayer });
  }
  const final = await norm("model.norm.weight");
  const head = config.tiedEmbeddings ? null : await coded(HEAD_NAME);
  return { layers, resident, embedding, head, norm: final, parameters };
}

function trainable(backend: WasmBackend, matrix: CodedMatrix, name: string): TrainableTrellis {
  if (matrix.method !== "trellis")
    throw new InputError(`${name} is coded by "${matrix.method}": only "trellis" can be tuned`);
  return new TrainableTrellis(backend, matrix, name);
}

function parametersOf(matrix: TrainableTrellis, name: string): Parameter[] {
  const { scales, dScales, tables, dTables } = matrix;
  return [
    { name: `${name}.scales`, kind: "scales", value: scales, gradient: dScales, unit: ownSizes(scales) },
    { name: `${name}.tables`, kind: "tables", value: tables, gradient: dTables, unit: commonSize(tables) },
  ];
}
