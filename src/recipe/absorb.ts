/**
 * A part of the recipe "best", between coding the embedding and coding the layers: the layers, still dense, learn to
 * predict with the coded embedding (and head, where it is tied) what the original predicts with its own. What they can
 * make up for is then coded with them. Bytes and speed of the result stay as they are.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import type { ModelConfig } from "../checkpoint/config.js";
import { openCheckpoint } from "../checkpoint/open.js";
import { expectedTensors } from "../checkpoint/tensors.js";
import { type Absorb, DEFAULT_TARGET, type Target, targetBits } from "../compress/index.js";
import { createTrainingBackend } from "../compute/index.js";
import { WasmTraining } from "../compute/wasm/training.js";
import { sha256, withoutSlash } from "../container/disk.js";
import type { JsonObject } from "../container/manifest.js";
import { DenseModel } from "../train/dense-model.js";
import { decidedSteps } from "../training/budget.js";
import type { TrainingSet } from "../training/data.js";
import { Learner } from "../training/learner.js";
import { trainingData } from "../training/options.js";
import type { StateIdentity } from "../training/state.js";
import { MEASUREMENTS, measuredExamples, NoGainError, runTraining } from "../training/trainer.js";
import { EMBEDDING_NAME } from "../transformer/weights.js";
import { Divergence } from "../tune/divergence.js";
import { OriginalModel } from "../tune/original.js";
import { timed } from "../tune/run.js";
import { type AbsorbReport, isAbsorbed, openAbsorbed, writeAbsorbed } from "./absorbed.js";
import type { BestOptions } from "./best.js";

/** One window a step, as long as distillation's. */
export const CONTEXT = 1024;
/** At 10x. pocket-stories, 131,072 tokens: .0001 brings its divergence from .057 to .039, .0003 to .042. */
const LEARNING_RATE = 1e-4;
/**
 * The less the embedding has lost, the less a step may change: halved with each bit above this. pocket-stories, whole
 * model: at 8x .105 -> .099 with .0001, no gain with .0003; at 6x .0371 -> .0364, .0350, .0360 with .0001, .00005, .000025.
 */
const HIGHEST_RATE_BITS = 1.6;
const ADAMW = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0 };
/** Two models in f32, gradients and two moments of what learns: beside activations they must fit 4 GiB. */
const MAX_BYTES = 2.5e9;

/** Where an unfinished run to `out` keeps its state, and then the layers. */
export function absorbingFolder(out: string): string {
  return `${withoutSlash(out)}.absorbing`;
}

/**
 * What teacher, layers that learn, their gradients and moments take in f32; null where that is too much. `bytes16` is
 * of the model as 16-bit safetensors.
 */
export function learningBytes({
  config,
  bytes16,
}: {
  readonly config: ModelConfig;
  readonly bytes16: number;
}): number | null {
  const { vocabularySize, hiddenSize } = config;
  const bytes = 4 * ((5 * bytes16) / 2 - 3 * vocabularySize * hiddenSize);
  return bytes <= MAX_BYTES ? bytes : null;
}

/** For `seconds` of training at the pace that is measured here; null for a model that is too large for it. */
export async function planAbsorption(options: BestOptions, seconds: number): Promise<Absorption | null> {
  const checkpoint = await openCheckpoint(options.source);
  try {
    const { contextLength } = checkpoint.config;
    if (learningBytes(checkpoint) === null) return null;
    const { seed = 0, resume = false, signal, onProgress } = options;
    const context = Math.min(CONTEXT, contextLength);
    const set = await textFor(checkpoint, options, context, seed);
    const steps = await decidedSteps(absorbingFolder(options.out), resume, async () => {
      onProgress?.({ stage: "measuring the pace", done: 0, total: 1 });
      const embedding = await checkpoint.read(`${EMBEDDING_NAME}.weight`);
      return await withLearner({ checkpoint, embedding, context, options }, async (learner) => {
        const step = () => learner.step(0, set.training.slice(0, 1), 0, () => {}, signal);
        // The first reads the teacher's layers, and allocates.
        await step();
        const secondsPerStep = await timed(step, 2);
        const measuring = await timed(() => learner.measure(measuredExamples(set), signal));
        return Math.max(1, Math.floor((seconds - (MEASUREMENTS + 1) * measuring) / secondsPerStep));
      });
    });
    return new Absorption(options, { steps, context, learningRate: rateFor(options.target), seed }, set);
  } finally {
    await checkpoint.close();
  }
}

function rateFor(target: Target = DEFAULT_TARGET): number {
  return LEARNING_RATE * 2 ** Math.min(0, HIGHEST_RATE_BITS - targetBits(target));
}

interface Settings {
  readonly steps: number;
  readonly context: number;
  readonly learningRate: number;
  readonly seed: number;
}

export class Absorption implements Absorb {
  readonly description: JsonObject;
  readonly #options: BestOptions;
  readonly #settings: Settings;
  readonly #set: TrainingSet;
  #report: AbsorbReport | null = null;

  constructor(options: BestOptions, settings: Settings, set: TrainingSet) {
    this.#options = options;
    this.#settings = settings;
    this.#set = set;
    this.description = { ...settings, examples: set.fingerprint };
  }

  /** After `run`; null where it did not help, or was not called. */
  get report(): AbsorbReport | null {
    return this.#report;
  }

  async run(checkpoint: Checkpoint, embedding: Float32Array): Promise<Checkpoint> {
    const folder = absorbingFolder(this.#options.out);
    const { signal } = this.#options;
    const identity = {
      model: await checkpoint.hash(signal),
      options: sha256(JSON.stringify([this.description, sha256(new Uint8Array(embedding.buffer))])),
    };
    if (!(await isAbsorbed(folder))) {
      try {
        await this.#train(checkpoint, embedding, identity);
      } catch (error) {
        if (error instanceof NoGainError) return checkpoint;
        throw error;
      }
    }
    const { source, report } = await openAbsorbed(folder, identity, checkpoint, signal);
    this.#report = report;
    return source;
  }

  async #train(checkpoint: Checkpoint, embedding: Float32Array, identity: StateIdentity): Promise<void> {
    const { signal, onProgress, resume = false } = this.#options;
    const { steps, context, learningRate, seed } = this.#settings;
    const folder = absorbingFolder(this.#options.out);
    await withLearner({ checkpoint, embedding, context, options: this.#options }, async (learner, model) => {
      const trained = await runTraining(learner, {
        ...{ set: this.#set, steps, batch: 1, learningRate, seed, folder, identity, resume },
        ...{ stage: "training for the coded embedding", signal, onProgress },
      });
      const report = {
        steps: trained.steps,
        tokens: trained.steps * context,
        heldOutBefore: trained.before,
        heldOutAfter: trained.after,
      };
      await writeAbsorbed(folder, identity, report, model, signal);
    });
    for (const name of ["state", "best"]) await rm(join(folder, `${name}.safetensors`), { force: true });
  }
}

async function textFor(
  checkpoint: Checkpoint,
  { calibration, out, signal }: BestOptions,
  context: number,
  seed: number,
): Promise<TrainingSet> {
  const { source: name, config } = checkpoint;
  const tokenizer = await checkpoint.tokenizer();
  const model = { name, vocabularySize: config.vocabularySize, tokenizer };
  return await trainingData(model, { data: calibration, out, signal }, { context, seed });
}

interface Learning {
  readonly checkpoint: Checkpoint;
  readonly embedding: Float32Array;
  readonly context: number;
  readonly options: Pick<BestOptions, "threads">;
}

/** In a memory of its own, beside the calibration's. */
async function withLearner<T>(
  { checkpoint, embedding, context, options: { threads } }: Learning,
  use: (learner: Learner, model: DenseModel) => Promise<T>,
): Promise<T> {
  const { config } = checkpoint;
  const embeddingName = `${EMBEDDING_NAME}.weight`;
  async function* tensors(): AsyncGenerator<[name: string, values: Float32Array]> {
    for (const name of expectedTensors(config).keys())
      yield [name, name === embeddingName ? embedding : await checkpoint.read(name)];
  }
  const backend = await createTrainingBackend({ threads });
  try {
    const training = new WasmTraining(backend);
    const teacher = await OriginalModel.open(backend, checkpoint);
    const learns = (name: string) => name !== embeddingName;
    const model = await DenseModel.create(backend, training, config, tensors(), learns);
    const objective = new Divergence(backend, training, teacher, context);
    const learner = new Learner({
      ...{ backend, training, model, objective, optimiser: ADAMW, together: 1, context },
    });
    return await use(learner, model);
  } finally {
    await backend.close();
  }
}
