/**
 * A part of the recipe "best", between coding the embedding and coding the layers: the layers, still dense, learn to
 * predict with the coded embedding (and head, where it is tied) what the original predicts with its own. What they can
 * make up for is then coded with them. Bytes and speed of the result stay as they are.
 */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { FileSource } from "../checkpoint/file-source.js";
import { openCheckpoint } from "../checkpoint/open.js";
import { overlay } from "../checkpoint/overlay.js";
import { SafetensorsFile } from "../checkpoint/safetensors.js";
import { writeSafetensors } from "../checkpoint/safetensors-write.js";
import { expectedTensors } from "../checkpoint/tensors.js";
import type { Absorb } from "../compress/index.js";
import { createTrainingBackend } from "../compute/index.js";
import { WasmTraining } from "../compute/wasm/training.js";
import { exists, reportFullDisk, sha256, withoutSlash } from "../container/disk.js";
import type { JsonObject } from "../container/manifest.js";
import { UsageError } from "../errors.js";
import { f32ToBytes } from "../tensor/dtype.js";
import { DenseModel } from "../train/dense-model.js";
import { decidedSteps } from "../training/budget.js";
import type { TrainingSet } from "../training/data.js";
import { Learner } from "../training/learner.js";
import { trainingData } from "../training/options.js";
import { MEASUREMENTS, measuredExamples, NoGainError, runTraining } from "../training/trainer.js";
import { EMBEDDING_NAME } from "../transformer/weights.js";
import { Divergence } from "../tune/divergence.js";
import { OriginalModel } from "../tune/original.js";
import { timed } from "../tune/run.js";
import type { BestOptions } from "./best.js";

export interface AbsorbReport {
  readonly steps: number;
  readonly tokens: number;
  /** Divergence from the original on held-out text with nothing but the embedding coded, nats a token. */
  readonly heldOutBefore: number;
  readonly heldOutAfter: number;
}

/** One window a step, as long as distillation's. */
const CONTEXT = 1024;
/** pocket-stories at 10x, 131,072 tokens: .0001 brings its divergence from .057 to .039, .0003 to .042. */
const LEARNING_RATE = 1e-4;
const ADAMW = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0 };
/** Two models in f32, gradients and two moments of what learns: beside activations they must fit 4 GiB. */
const MAX_BYTES = 2.5e9;
const LAYERS = "layers.safetensors";
const METADATA = "pocketllm_absorbed";

/** Where an unfinished run to `out` keeps its state, and then the layers. */
export function absorbingFolder(out: string): string {
  return `${withoutSlash(out)}.absorbing`;
}

/** For `seconds` of training at the pace that is measured here; null for a model that is too large for it. */
export async function planAbsorption(options: BestOptions, seconds: number): Promise<Absorption | null> {
  const checkpoint = await openCheckpoint(options.source);
  try {
    const { vocabularySize, hiddenSize, contextLength } = checkpoint.config;
    const parameters = checkpoint.bytes16 / 2;
    if (4 * (5 * parameters - 3 * vocabularySize * hiddenSize) > MAX_BYTES) return null;
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
    return new Absorption(options, { steps, context, learningRate: LEARNING_RATE, seed }, set);
  } finally {
    await checkpoint.close();
  }
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
    const path = join(absorbingFolder(this.#options.out), LAYERS);
    const identity = {
      model: await checkpoint.hash(this.#options.signal),
      options: sha256(JSON.stringify([this.description, sha256(new Uint8Array(embedding.buffer))])),
    };
    if (!(await exists(path))) {
      try {
        await this.#train(checkpoint, embedding, identity, path);
      } catch (error) {
        if (error instanceof NoGainError) return checkpoint;
        throw error;
      }
    }
    return await this.#open(checkpoint, identity, path);
  }

  async #train(
    checkpoint: Checkpoint,
    embedding: Float32Array,
    identity: { readonly model: string; readonly options: string },
    path: string,
  ): Promise<void> {
    const { signal, onProgress, resume = false } = this.#options;
    const { steps, context, learningRate, seed } = this.#settings;
    const folder = absorbingFolder(this.#options.out);
    await withLearner({ checkpoint, embedding, context, options: this.#options }, async (learner, model) => {
      const trained = await runTraining(learner, {
        ...{ set: this.#set, steps, batch: 1, learningRate, seed, folder, identity, resume },
        ...{ stage: "training for the coded embedding", signal, onProgress },
      });
      const report: AbsorbReport = {
        steps: trained.steps,
        tokens: trained.steps * context,
        heldOutBefore: trained.before,
        heldOutAfter: trained.after,
      };
      const tensors = model.tensors
        .filter(({ learns }) => learns)
        .map(({ name, shape, read }) => ({
          ...{ name, shape, dtype: "F32" as const },
          data: async () => f32ToBytes(await read(), "F32"),
        }));
      const metadata = { [METADATA]: JSON.stringify({ ...identity, report }) };
      await reportFullDisk(path, () => writeSafetensors({ path, tensors, metadata, signal }));
    });
    for (const name of ["state", "best"]) await rm(join(folder, `${name}.safetensors`), { force: true });
  }

  async #open(
    checkpoint: Checkpoint,
    { model, options }: { readonly model: string; readonly options: string },
    path: string,
  ): Promise<Checkpoint> {
    const source = await FileSource.open(path);
    try {
      const file = await SafetensorsFile.open(source);
      const found = JSON.parse(file.header.metadata.get(METADATA) ?? "{}");
      if (found.model !== model || found.options !== options)
        throw new UsageError(`${path} is of a run with other options: give the same ones, or delete it`);
      this.#report = found.report;
      return overlay(checkpoint, {
        read: (name) => (file.tensors.has(name) ? file.readF32(name) : checkpoint.read(name)),
        close: () => source.close(),
      });
    } catch (error) {
      await source.close();
      throw error;
    }
  }
}

function textFor(
  checkpoint: Checkpoint,
  { calibration, out, signal }: BestOptions,
  context: number,
  seed: number,
): Promise<TrainingSet> {
  const { source: name, config } = checkpoint;
  return checkpoint.tokenizer().then((tokenizer) => {
    const model = { name, vocabularySize: config.vocabularySize, tokenizer };
    return trainingData(model, { data: calibration, out, signal }, { context, seed });
  });
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
  const embeddingName = `${EMBEDDING_NAME}.weight`;
  const tensors: [string, Float32Array][] = [];
  for (const name of expectedTensors(checkpoint.config).keys())
    tensors.push([name, name === embeddingName ? embedding : await checkpoint.read(name)]);
  const backend = await createTrainingBackend({ threads });
  try {
    const training = new WasmTraining(backend);
    const teacher = await OriginalModel.open(backend, checkpoint);
    const learns = (name: string) => name !== embeddingName;
    const model = new DenseModel(backend, training, checkpoint.config, tensors.splice(0), learns);
    const objective = new Divergence(backend, training, teacher, context);
    const learner = new Learner({
      ...{ backend, training, model, objective, optimiser: ADAMW, together: 1, context },
    });
    return await use(learner, model);
  } finally {
    await backend.close();
  }
}
