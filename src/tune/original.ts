/** The uncompressed model as a teacher: forward only, its layers in memory where they fit, else read each time. */
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import { DenseLinear } from "../compute/linear.js";
import { upload } from "../compute/upload.js";
import type { OpenLayer, TrainableModel } from "../transformer/model-backward.js";
import {
  denseSource,
  EMBEDDING_NAME,
  freeLayer,
  HEAD_NAME,
  type LayerWeights,
  layerFloats,
  loadLayer,
  wholeFloats,
} from "../transformer/weights.js";

/** Largest f32 layers that stay: together with the model that is trained they must fit 4 GiB. */
const RESIDENT_BYTES = 1.5 * 2 ** 30;

function staysResident(bytes16: number): boolean {
  return 2 * bytes16 <= RESIDENT_BYTES;
}

/** What an OriginalModel takes; `bytes16` as of its checkpoint. */
export function originalBytes(config: ModelConfig, bytes16: number): number {
  return staysResident(bytes16) ? 2 * bytes16 : 4 * (wholeFloats(config) + layerFloats(config));
}

export class OriginalModel implements TrainableModel {
  readonly gradient = {};
  readonly #layers: (LayerWeights | undefined)[];
  /** Layers stay once they are read. */
  readonly resident: boolean;

  static async open(backend: Backend, checkpoint: Checkpoint): Promise<OriginalModel> {
    const { config } = checkpoint;
    const matrix = async (name: string) =>
      new DenseLinear(
        backend,
        config.vocabularySize,
        config.hiddenSize,
        await checkpoint.read(`${name}.weight`),
      );
    const embedding = await matrix(EMBEDDING_NAME);
    const head = config.tiedEmbeddings ? embedding : await matrix(HEAD_NAME);
    const norm = await checkpoint.read("model.norm.weight");
    return new OriginalModel(backend, checkpoint, embedding, head, upload(backend, norm));
  }

  private constructor(
    readonly backend: Backend,
    readonly checkpoint: Checkpoint,
    readonly embedding: DenseLinear,
    readonly head: DenseLinear,
    readonly finalNorm: Buffer,
  ) {
    this.#layers = new Array(checkpoint.config.layers).fill(undefined);
    this.resident = staysResident(checkpoint.bytes16);
  }

  get config() {
    return this.checkpoint.config;
  }

  async openLayer(index: number): Promise<OpenLayer> {
    const source = denseSource(this.backend, this.checkpoint);
    this.#layers[index] ??= await loadLayer(this.backend, this.config, source, index);
    // A dense source gives DenseLinears.
    return { layer: this.#layers[index] as OpenLayer["layer"], gradient: {} };
  }

  async closeLayer(index: number): Promise<void> {
    if (!this.resident) this.#free(index);
  }

  free(): void {
    for (const index of this.#layers.keys()) this.#free(index);
    this.embedding.free();
    if (this.head !== this.embedding) this.head.free();
    this.backend.free(this.finalNorm);
  }

  #free(index: number): void {
    const layer = this.#layers[index];
    if (layer) freeLayer(this.backend, layer);
    this.#layers[index] = undefined;
  }
}
