/**
 * Coding with calibration text, layer by layer and site by site: the Hessian of each site's input is taken
 * from the model as coded so far, the site's matrices are corrected for what the coded layers before have
 * done to that input, and coded with error feedback.
 */
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import type { Buffer } from "../compute/backend.js";
import { DenseLinear, type Linear } from "../compute/linear.js";
import { upload } from "../compute/upload.js";
import type { WasmBackend } from "../compute/wasm/backend.js";
import type { CodedLayer as CodedMatrixLayer } from "../container/layer.js";
import { codedLinear } from "../container/linear.js";
import { throwIfAborted } from "../errors.js";
import type { OnProgress } from "../progress.js";
import {
  denseSource,
  EMBEDDING_NAME,
  freeLayer,
  HEAD_NAME,
  layerLinears,
  loadLayer,
} from "../transformer/weights.js";
import type { Coder, MatrixInput } from "./coder.js";
import { TargetCorrection } from "./correction.js";
import { SITES } from "./matrices.js";
import type { Part } from "./options.js";
import type { CompressionPlan, PlannedMatrix } from "./plan.js";
import { CalibrationStream, type CodedLayer, type SiteStatistics } from "./stream.js";

/** Most bytes of a matrix that is decoded to f32 while its layer is coded: 4096 x 4096. */
const DECODED_BYTES = 2 ** 26;
/** Damping of the head's Hessian: its rows are tokens, most of them rare in any calibration text. */
const HEAD_DAMPING = 0.1;
/**
 * Tokens that a tied head's Hessian is taken from: it needs a pass of its own through the original model,
 * before the embedding is coded. 14 tokens a column for SmolLM2.
 */
export const HEAD_TOKENS = 8192;

export interface CalibratedOptions<Code> {
  readonly backend: WasmBackend;
  readonly checkpoint: Checkpoint;
  readonly plan: CompressionPlan<Code>;
  readonly coder: Coder<Code>;
  /** Parts of the method to leave out: `correction` is seen to here. */
  readonly without?: readonly Part[] | undefined;
  readonly windows: readonly Int32Array[];
  /** Windows that the result is only measured on. */
  readonly heldOut: readonly Int32Array[];
  /** Called with the coded embedding, [vocabularySize, hiddenSize]: the model whose layers are then coded. Default: the same. */
  readonly absorb?: ((embedding: Float32Array) => Promise<Checkpoint>) | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/**
 * Returns the mean KL(original ‖ coded) on the windows held out, in nats a token; null without any, and where `absorb`
 * has changed what the original stream runs through.
 */
export async function codeCalibrated<Code>(options: CalibratedOptions<Code>): Promise<number | null> {
  const { backend, checkpoint, windows, heldOut } = options;
  const stream = new CalibrationStream(backend, checkpoint.config, windows, heldOut);
  try {
    return await new CalibratedRun(options, stream).run();
  } finally {
    stream.free();
  }
}

class CalibratedRun<Code> {
  readonly #options: CalibratedOptions<Code>;
  readonly #stream: CalibrationStream;
  readonly #planned: ReadonlyMap<string, PlannedMatrix<Code>>;
  /** Whose layers are coded. */
  #source: Checkpoint;

  constructor(options: CalibratedOptions<Code>, stream: CalibrationStream) {
    this.#options = options;
    this.#stream = stream;
    this.#source = options.checkpoint;
    this.#planned = new Map(options.plan.matrices.map((matrix) => [matrix.name, matrix]));
  }

  async run(): Promise<number | null> {
    const { backend, checkpoint, coder } = this.#options;
    const { config } = checkpoint;
    const embedding = this.#matrix(EMBEDDING_NAME);
    const original = await this.#dense(EMBEDDING_NAME);
    this.#stream.start(original, original);
    // Tied: the embedding is the head too, and is coded for the inputs that the head gets.
    const hessian =
      config.tiedEmbeddings && !coder.has(embedding) ? await this.#originalHeadHessian() : undefined;
    const codedEmbedding = await coder.code(embedding, async () => ({
      weights: await checkpoint.read(`${EMBEDDING_NAME}.weight`),
      hessian,
      damping: HEAD_DAMPING,
    }));
    const coded = codedLinear(backend, codedEmbedding);
    this.#stream.start(original, coded);
    original.free();
    await this.#absorb(coded);
    coded.free();
    for (let layer = 0; layer < config.layers; layer++) await this.#codeLayer(layer);
    return await this.#measure(config.tiedEmbeddings ? codedEmbedding : await this.#codeHead());
  }

  async #absorb(embedding: Linear): Promise<void> {
    const { backend, checkpoint, absorb } = this.#options;
    const { vocabularySize, hiddenSize } = checkpoint.config;
    if (!absorb) return;
    const values = decoded(backend, embedding, vocabularySize, hiddenSize);
    const read = await backend.read(values);
    backend.free(values);
    this.#source = await absorb(read);
    if (this.#source !== checkpoint) this.#stream.start(embedding, embedding);
  }

  async #measure(codedHead: CodedMatrixLayer): Promise<number | null> {
    const { backend, checkpoint, heldOut } = this.#options;
    if (heldOut.length === 0 || this.#source !== checkpoint) return null;
    const norm = await this.#vector("model.norm.weight");
    const original = await this.#dense(checkpoint.config.tiedEmbeddings ? EMBEDDING_NAME : HEAD_NAME);
    const coded = codedLinear(backend, codedHead);
    try {
      return await this.#stream.heldOutDivergence(norm, original, coded);
    } finally {
      backend.free(norm);
      original.free();
      coded.free();
    }
  }

  async #dense(name: string): Promise<Linear> {
    const { backend, checkpoint } = this.#options;
    const { vocabularySize, hiddenSize } = checkpoint.config;
    const weights = await checkpoint.read(`${name}.weight`);
    return new DenseLinear(backend, vocabularySize, hiddenSize, weights);
  }

  /** The head's Hessian in the original model: one pass through all of its layers. */
  async #originalHeadHessian(): Promise<Float32Array> {
    const { backend, checkpoint, windows, signal, onProgress } = this.#options;
    const { layers } = checkpoint.config;
    const count = Math.min(windows.length, Math.ceil(HEAD_TOKENS / windows[0].length));
    const source = denseSource(backend, checkpoint);
    for (let layer = 0; layer < layers; layer++) {
      throwIfAborted(signal);
      onProgress?.({ stage: "calibrating the head", done: layer, total: layers });
      const weights = await loadLayer(backend, checkpoint.config, source, layer);
      this.#stream.forwardOriginal(weights, count);
      freeLayer(backend, weights);
    }
    const norm = await this.#vector("model.norm.weight");
    try {
      return await this.#stream.headHessian("original", norm, count);
    } finally {
      backend.free(norm);
    }
  }

  async #codeHead(): Promise<CodedMatrixLayer> {
    const { coder, windows, backend } = this.#options;
    const head = this.#matrix(HEAD_NAME);
    const norm = await this.#vector("model.norm.weight");
    const coded = await coder.code(head, async () => ({
      weights: await this.#source.read(`${HEAD_NAME}.weight`),
      hessian: await this.#stream.headHessian("coded", norm, windows.length),
      damping: HEAD_DAMPING,
    }));
    backend.free(norm);
    return coded;
  }

  async #codeLayer(index: number): Promise<void> {
    const { backend, coder, signal } = this.#options;
    throwIfAborted(signal);
    const { config } = this.#source;
    const original = await loadLayer(backend, config, denseSource(backend, this.#source), index);
    const coded: CodedLayer = {
      inputNorm: original.inputNorm,
      postAttentionNorm: original.postAttentionNorm,
      ...(original.qNorm && { qNorm: original.qNorm }),
      ...(original.kNorm && { kNorm: original.kNorm }),
    };
    const specs = layerLinears(config, index);
    try {
      for (const { site, kinds } of SITES) {
        const matrices = kinds.map((kind) => this.#matrix(specs[kind].name));
        const measure = !matrices.every((matrix) => coder.has(matrix));
        const statistics = await this.#stream.visit(site, original, coded, measure);
        const inputs = statistics ? await this.#corrected(matrices, statistics) : [];
        const results = await Promise.allSettled(
          matrices.map((matrix, i) => coder.code(matrix, async () => inputs[i])),
        );
        for (const [i, result] of results.entries()) {
          if (result.status === "rejected") throw result.reason;
          const { name, bias } = specs[kinds[i]];
          const values = bias ? await this.#source.read(`${name}.bias`) : undefined;
          coded[kinds[i]] = this.#linear(result.value, values);
        }
      }
      this.#stream.finish(coded);
    } finally {
      freeLayer(backend, original);
      for (const { kinds } of SITES) for (const kind of kinds) coded[kind]?.free();
    }
  }

  /** For all windows of calibration text: decoded once where there is room, else for each window again. */
  #linear(layer: CodedMatrixLayer, bias: Float32Array | undefined): Linear {
    const { backend } = this.#options;
    const coded = codedLinear(backend, layer, bias);
    const { outputs, inputs } = coded;
    if (4 * outputs * inputs > DECODED_BYTES) return coded;
    const weight = decoded(backend, coded, outputs, inputs);
    coded.free();
    return new DenseLinear(backend, outputs, inputs, weight, bias);
  }

  /**
   * What the matrices of a site are coded from. All are corrected before the first is coded: the correction
   * uses all threads at once, coding keeps each of them busy with a matrix.
   */
  async #corrected(
    matrices: readonly PlannedMatrix<Code>[],
    statistics: SiteStatistics,
  ): Promise<MatrixInput[]> {
    const { backend, without = [] } = this.#options;
    const correction = without.includes("correction") ? null : new TargetCorrection(backend, statistics);
    try {
      const inputs: MatrixInput[] = [];
      for (const { name } of matrices) {
        const original = await this.#source.read(`${name}.weight`);
        const weights = (await correction?.apply(original)) ?? original;
        inputs.push({ weights, hessian: statistics.hessian });
      }
      return inputs;
    } finally {
      correction?.free();
    }
  }

  async #vector(name: string): Promise<Buffer> {
    return upload(this.#options.backend, await this.#source.read(name));
  }

  #matrix(name: string): PlannedMatrix<Code> {
    const matrix = this.#planned.get(name);
    if (!matrix) throw new Error(`${name} is not in the plan`);
    return matrix;
  }
}

/** All weights of a matrix, [outputs, inputs], in a buffer of their own. */
function decoded(backend: WasmBackend, linear: Linear, outputs: number, inputs: number): Buffer {
  const weights = backend.allocate(outputs * inputs);
  linear.gather(
    Int32Array.from({ length: outputs }, (_, row) => row),
    weights,
  );
  return weights;
}
