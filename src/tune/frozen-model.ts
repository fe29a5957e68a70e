/**
 * A PocketLLM folder as dense weights that gradients go through but that do not change, whatever method coded
 * them: decoded once where they fit, else when a layer is opened, into buffers that all layers share.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import { DenseLinear } from "../compute/linear.js";
import { upload } from "../compute/upload.js";
import type { PocketFolder } from "../container/folder.js";
import { codedLinear } from "../container/linear.js";
import {
  EMBEDDING_NAME,
  HEAD_NAME,
  LAYER_LINEARS,
  type LayerLinear,
  type LayerWeights,
  layerFloats,
  layerLinears,
  layerNorms,
} from "../transformer/weights.js";

/** Decoded layers up to this size stay (SmolLM2-135M: 425 MB): adapters leave more room than whole gradients do. */
const RESIDENT_BYTES = 1.5 * 2 ** 30;

/** A layer's matrices and norms. */
export type FrozenLayer = Omit<LayerWeights, LayerLinear> & { readonly [K in LayerLinear]: DenseLinear };

export class FrozenModel {
  readonly #backend: Backend;
  readonly #folder: PocketFolder;

  /** Nothing is decoded again after `open`. */
  readonly resident: boolean;

  private constructor(
    backend: Backend,
    folder: PocketFolder,
    resident: boolean,
    readonly layers: readonly FrozenLayer[],
    readonly embedding: DenseLinear,
    readonly head: DenseLinear,
    readonly finalNorm: Buffer,
  ) {
    this.#backend = backend;
    this.#folder = folder;
    this.resident = resident;
  }

  static async open(
    backend: Backend,
    folder: PocketFolder,
    residentBytes = RESIDENT_BYTES,
  ): Promise<FrozenModel> {
    const { config } = folder;
    const { vocabularySize, hiddenSize, tiedEmbeddings } = config;
    const whole = async (name: string) => {
      const weight = backend.allocate(vocabularySize * hiddenSize);
      const linear = new DenseLinear(backend, vocabularySize, hiddenSize, weight);
      await decodeInto(backend, folder, name, linear);
      return linear;
    };
    const embedding = await whole(EMBEDDING_NAME);
    const head = tiedEmbeddings ? embedding : await whole(HEAD_NAME);
    const finalNorm = upload(backend, await folder.plain("model.norm.weight"));
    const resident = 4 * layerFloats(config) * config.layers <= residentBytes;
    const layers: FrozenLayer[] = [];
    let shared: Record<LayerLinear, Buffer> | undefined;
    for (let index = 0; index < config.layers; index++) {
      if (resident || !shared) shared = allocateLayer(backend, config);
      layers.push(await frozenLayer(backend, folder, index, shared));
    }
    const model = new FrozenModel(backend, folder, resident, layers, embedding, head, finalNorm);
    if (resident) for (const index of layers.keys()) await model.#decode(index);
    return model;
  }

  /** The layer's weights, decoded now unless they stay. */
  async openLayer(index: number): Promise<FrozenLayer> {
    if (!this.resident) await this.#decode(index);
    return this.layers[index];
  }

  async #decode(index: number): Promise<void> {
    const specs = layerLinears(this.#folder.config, index);
    for (const kind of LAYER_LINEARS)
      await decodeInto(this.#backend, this.#folder, specs[kind].name, this.layers[index][kind]);
  }
}

function allocateLayer(backend: Backend, config: ModelConfig): Record<LayerLinear, Buffer> {
  const specs = layerLinears(config, 0);
  const entries = LAYER_LINEARS.map((kind) => {
    const { outputs, inputs } = specs[kind];
    return [kind, backend.allocate(outputs * inputs)];
  });
  return Object.fromEntries(entries) as Record<LayerLinear, Buffer>;
}

async function frozenLayer(
  backend: Backend,
  folder: PocketFolder,
  index: number,
  weights: Readonly<Record<LayerLinear, Buffer>>,
): Promise<FrozenLayer> {
  const specs = layerLinears(folder.config, index);
  const parts: Record<string, Buffer | DenseLinear> = {};
  for (const [key, name] of Object.entries(layerNorms(folder.config, index)))
    parts[key] = upload(backend, await folder.plain(name));
  for (const kind of LAYER_LINEARS) {
    const { name, outputs, inputs, bias } = specs[kind];
    const biases = bias ? await folder.plain(`${name}.bias`) : undefined;
    parts[kind] = new DenseLinear(backend, outputs, inputs, weights[kind], biases);
  }
  return parts as unknown as FrozenLayer;
}

/** The weights of the matrix `name` into those of `target`: its rows, looked up. */
async function decodeInto(
  backend: Backend,
  folder: PocketFolder,
  name: string,
  { weight, outputs }: DenseLinear,
): Promise<void> {
  if (!folder.layers.has(name)) {
    backend.write(weight, await folder.plain(`${name}.weight`));
    return;
  }
  const linear = codedLinear(backend, await folder.coded(name), undefined, name);
  linear.gather(
    Int32Array.from({ length: outputs }, (_, i) => i),
    weight,
  );
  linear.free();
}
