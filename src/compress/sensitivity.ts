/**
 * What an error of each matrix costs, measured: the divergence that coding noise on its weights causes, to
 * second order. With g the gradient of the log-likelihood of tokens drawn from the model itself (so that E[g gᵀ]
 * is the Fisher information), noise E on a matrix costs ½ E[(dyᵀ E x)²] nats a token. Noise that error feedback
 * leaves has rows with covariance D p_r |H|^(1/n) H⁻¹ (H = E[x xᵀ] of order n, p_r the row's mean square, D the
 * rate's distortion), and xᵀ H⁻¹ x is n on average, so the cost is D times
 *   ½ n |H|^(1/n) Σ_r p_r E[dy_r²],
 * which directions of huge activations hardly enter: they are few, and feedback keeps noise out of them.
 */
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import type { Buffer } from "../compute/backend.js";
import { DenseLinear, type LinearBackwardOptions } from "../compute/linear.js";
import { upload } from "../compute/upload.js";
import type { WasmBackend } from "../compute/wasm/backend.js";
import { WasmTraining } from "../compute/wasm/training.js";
import { throwIfAborted } from "../errors.js";
import type { OnProgress } from "../progress.js";
import { Random } from "../random.js";
import { type HeadChunk, ModelBackward, type OpenLayer, type Pass } from "../transformer/model-backward.js";
import {
  EMBEDDING_NAME,
  freeLayer,
  HEAD_NAME,
  type LayerWeights,
  layerLinears,
  loadLayer,
  type WeightSource,
} from "../transformer/weights.js";
import { rootDeterminant } from "./determinant.js";
import { SITES } from "./matrices.js";
import { type MatrixSensitivity, type Sensitivities, tierRows } from "./plan.js";
import { layerWeights, vocabularyWeights } from "./row-weights.js";

/** Tokens that are measured on. */
export const SENSITIVITY_TOKENS = 4096;
/** Most bytes of hidden states that a batch of windows keeps. */
const BATCH_BYTES = 2 ** 29;
/** Most weights of embedding and head together: f32, and one gradient. */
const WHOLE_WEIGHTS = 2 ** 28;

export interface SensitivityOptions {
  readonly backend: WasmBackend;
  readonly checkpoint: Checkpoint;
  /** Token ids of calibration text, all of one length; the first 4096 tokens' worth are used. */
  readonly windows: readonly Int32Array[];
  /** Seed of the drawn tokens. */
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** Null for models whose vocabulary is too large for its gradient to be held. */
export async function measureSensitivities(options: SensitivityOptions): Promise<Sensitivities | null> {
  const { config } = options.checkpoint;
  const copies = config.tiedEmbeddings ? 2 : 3;
  if (copies * config.vocabularySize * config.hiddenSize > WHOLE_WEIGHTS) return null;
  const run = new SensitivityRun(options);
  try {
    return await run.measure();
  } finally {
    run.free();
  }
}

/** A matrix that sums, as gradients pass, what its sensitivity is made of. */
class ObservedLinear extends DenseLinear {
  /** Σ_t dy_r², [outputs] */
  readonly squares: Buffer;
  /** Σ_t x xᵀ, [inputs, inputs]: only where `gram` is set, one of the matrices that share an input. */
  readonly gram: Buffer | undefined;
  tokens = 0;

  constructor(
    readonly backend: WasmBackend,
    outputs: number,
    inputs: number,
    readonly values: Float32Array,
    bias: Float32Array | undefined,
    measureInput: boolean,
  ) {
    super(backend, outputs, inputs, values, bias);
    this.squares = backend.allocate(outputs);
    if (measureInput) this.gram = backend.allocate(inputs * inputs);
  }

  override backward(training: WasmTraining, pass: LinearBackwardOptions): void {
    const { x, dy, tokens } = pass;
    training.columnDots(dy, dy, this.squares, tokens, this.outputs);
    if (this.gram) this.backend.gram(x, this.gram, tokens, this.inputs);
    this.tokens += tokens;
    super.backward(training, { ...pass, gradient: undefined });
  }

  /** Mean square of each row's weights. */
  rowPowers(): Float64Array {
    return rowSquares(this.values, this.inputs).map((sum) => sum / this.inputs);
  }

  override free(): void {
    super.free();
    this.backend.free(this.squares);
    if (this.gram) this.backend.free(this.gram);
  }
}

class SensitivityRun {
  readonly #options: SensitivityOptions;
  readonly #training: WasmTraining;
  readonly #source: WeightSource;
  readonly #owned: (() => void)[] = [];
  #open: LayerWeights | undefined;
  /** |H|^(1/n) of the input that the matrices of a site share, by the first of them. */
  #root = 0;

  constructor(options: SensitivityOptions) {
    const { backend, checkpoint } = options;
    this.#options = options;
    this.#training = new WasmTraining(backend);
    const measured = new Set([EMBEDDING_NAME, HEAD_NAME]);
    for (let index = 0; index < checkpoint.config.layers; index++) {
      const specs = layerLinears(checkpoint.config, index);
      for (const { kinds } of SITES) measured.add(specs[kinds[0]].name);
    }
    this.#source = {
      linear: async ({ name, outputs, inputs, bias }) =>
        new ObservedLinear(
          backend,
          outputs,
          inputs,
          await checkpoint.read(`${name}.weight`),
          bias ? await checkpoint.read(`${name}.bias`) : undefined,
          measured.has(name),
        ),
      vector: (name) => checkpoint.read(name),
    };
  }

  async measure(): Promise<Sensitivities> {
    const { backend, checkpoint, windows, seed, signal } = this.#options;
    const { config } = checkpoint;
    const { layers, hiddenSize, vocabularySize, tiedEmbeddings } = config;
    const tokens = windows[0].length;
    const room = Math.max(1, Math.floor(BATCH_BYTES / (4 * tokens * hiddenSize * (layers + 1))));
    const used = windows.slice(0, Math.min(room, Math.max(1, Math.floor(SENSITIVITY_TOKENS / tokens))));
    const whole = async (name: string) => {
      const spec = { name, outputs: vocabularySize, inputs: hiddenSize, bias: false };
      const linear = (await this.#source.linear(spec)) as ObservedLinear;
      this.#owned.push(() => linear.free());
      return linear;
    };
    const own = (buffer: Buffer) => {
      this.#owned.push(() => backend.free(buffer));
      return buffer;
    };
    const embedding = await whole(EMBEDDING_NAME);
    const head = tiedEmbeddings ? embedding : await whole(HEAD_NAME);
    const finalNorm = own(upload(backend, await checkpoint.read("model.norm.weight")));
    const dEmbedding = own(backend.allocate(vocabularySize * hiddenSize));
    const backward = new ModelBackward(backend, this.#training, config, used.length, tokens);
    this.#owned.push(() => backward.free());
    const random = new Random(seed);
    const out: Record<string, MatrixSensitivity> = {};
    let opened = 0;
    await backward.run(
      {
        config,
        embedding,
        head,
        finalNorm,
        gradient: { embedding: { weight: dEmbedding } },
        openLayer: async (index: number): Promise<OpenLayer> => {
          throwIfAborted(signal);
          this.#progress(opened++, 2 * layers);
          this.#open = await loadLayer(backend, config, this.#source, index);
          return { layer: this.#open as OpenLayer["layer"], gradient: {} };
        },
        closeLayer: async (index: number, pass: Pass) => {
          if (pass === "backward" && this.#open) await this.#addLayer(index, this.#open, out);
          this.#closeLayer();
        },
      },
      { windows: used, loss: (chunk) => this.#drawTokens(chunk, random), signal },
    );
    this.#progress(2 * layers, 2 * layers);
    // White noise on the rows that are looked up: ½ Σ_r p_r |gradient of row r|².
    const half = 0.5 / (tokens * used.length);
    const looked = rowSquares(await backend.read(dEmbedding), hiddenSize).map((sum) => half * sum);
    const scored = await this.#rowCosts(head);
    if (head === embedding) {
      const both = scored.map((x, r) => x + looked[r]);
      out[EMBEDDING_NAME] = vocabularySensitivity(embedding, both);
    } else {
      out[EMBEDDING_NAME] = vocabularySensitivity(embedding, looked);
      out[HEAD_NAME] = vocabularySensitivity(head, scored);
    }
    return out;
  }

  /** Gives everything back, however far the measurement came. */
  free(): void {
    this.#closeLayer();
    for (const release of this.#owned.splice(0)) release();
    this.#training.free();
  }

  #closeLayer(): void {
    if (this.#open) freeLayer(this.#options.backend, this.#open);
    this.#open = undefined;
  }

  #progress(done: number, total: number): void {
    this.#options.onProgress?.({ stage: "measuring sensitivities", done, total });
  }

  async #addLayer(index: number, layer: LayerWeights, out: Record<string, MatrixSensitivity>): Promise<void> {
    const specs = layerLinears(this.#options.checkpoint.config, index);
    for (const { kinds } of SITES)
      for (const kind of kinds) {
        const linear = layer[kind] as ObservedLinear;
        const costs = await this.#rowCosts(linear);
        const weights = layerWeights(kind, costs);
        out[specs[kind].name] = {
          tiers: [rounded(tierCost(linear.rowPowers(), costs, 0, linear.outputs), 6)],
          ...(weights && { rows: roundedWeights(weights) }),
        };
      }
  }

  /** ½ n |H|^(1/n) E[dy_r²] of each row: the cost of a unit of distortion and of the row's mean square. */
  async #rowCosts(linear: ObservedLinear): Promise<Float64Array> {
    const { backend } = this.#options;
    if (linear.gram) this.#root = rootDeterminant(backend, await backend.read(linear.gram), linear.tokens);
    const factor = (0.5 * linear.inputs * this.#root) / linear.tokens;
    return Float64Array.from(await backend.read(linear.squares), (sum) => factor * sum);
  }

  /** Draws each position's next token from the model and takes the gradient of its log-likelihood. */
  async #drawTokens({ tokens, logits }: HeadChunk, random: Random): Promise<void> {
    const { backend, checkpoint } = this.#options;
    const columns = checkpoint.config.vocabularySize;
    const values = await backend.read(logits, 0, tokens * columns);
    const targets = new Int32Array(tokens);
    for (let t = 0; t < tokens; t++)
      targets[t] = draw(values.subarray(t * columns, (t + 1) * columns), random.uniform());
    const loss = backend.allocate(tokens);
    this.#training.crossEntropy({ logits, targets, loss, rows: tokens, columns, scale: 1 });
    backend.free(loss);
  }
}

/** Σ of the squares of each row of [?, columns]. */
function rowSquares(values: Float32Array, columns: number): Float64Array {
  return Float64Array.from({ length: values.length / columns }, (_, r) => {
    let sum = 0;
    for (let i = r * columns; i < (r + 1) * columns; i++) sum += values[i] * values[i];
    return sum;
  });
}

/** From the costs of a unit of distortion and mean square, for each row of a vocabulary. */
function vocabularySensitivity(linear: ObservedLinear, costs: Float64Array): MatrixSensitivity {
  const tiers = tierRows(linear.outputs);
  const powers = linear.rowPowers();
  return {
    tiers: tiers.map(([first, end]) => rounded(tierCost(powers, costs, first, end), 6)),
    rows: tiers.flatMap(([first, end]) => roundedWeights(vocabularyWeights(costs.subarray(first, end)))),
  };
}

function roundedWeights(weights: Float64Array): number[] {
  return Array.from(weights, (x) => rounded(x, 3));
}

/** Σ_r p_r c_r over a tier's rows. */
function tierCost(powers: Float64Array, costs: Float64Array, first: number, end: number): number {
  let sum = 0;
  for (let r = first; r < end; r++) sum += powers[r] * costs[r];
  return sum;
}

/** The token that `share` (0 … 1) of the distribution's mass falls on. */
function draw(logits: Float32Array, share: number): number {
  let top = Number.NEGATIVE_INFINITY;
  for (const x of logits) top = Math.max(top, x);
  // Loops: Float64Array.from takes 6 ms for a vocabulary of 49,152, and there are thousands of tokens.
  const masses = new Float64Array(logits.length);
  let total = 0;
  for (let i = 0; i < masses.length; i++) {
    masses[i] = Math.exp(logits[i] - top);
    total += masses[i];
  }
  let rest = share * total;
  let token = 0;
  while (token < masses.length - 1 && rest >= masses[token]) rest -= masses[token++];
  return token;
}

/** Stable and short text in the journal. */
function rounded(x: number, digits: number): number {
  return Number(x.toPrecision(digits));
}
