/**
 * `train`: a small model from nothing. Shape and tokenizer are another model's; what it learns is text. It is
 * written as a Hugging Face folder, which `compress` takes.
 */
import { mkdir, rename, rm } from "node:fs/promises";
import { join, resolve as resolvePath } from "node:path";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { openCheckpoint } from "../checkpoint/open.js";
import { syncFolder, writeAtomically, writeSafetensors } from "../checkpoint/safetensors-write.js";
import { createTrainingBackend } from "../compute/index.js";
import { WasmTraining } from "../compute/wasm/training.js";
import { exists, reportFullDisk, sha256, withoutSlash } from "../container/disk.js";
import { describeFiles } from "../container/input-files.js";
import { prettyJson } from "../container/json.js";
import { InputError, UsageError } from "../errors.js";
import { Random } from "../random.js";
import { f32ToBytes } from "../tensor/dtype.js";
import { type AdamWSettings, Learner } from "../training/learner.js";
import { NextToken } from "../training/objective.js";
import {
  type RunOptions,
  refuseUnfinished,
  resolveEpochs,
  resolveRun,
  stepsOfEpochs,
  trainingData,
} from "../training/options.js";
import { runTraining } from "../training/trainer.js";
import { DenseModel } from "./dense-model.js";
import { initialTensors } from "./initialise.js";

/** Text to learn; a batch is 16 windows by default, the highest learning rate .002. */
export interface TrainOptions extends RunOptions {
  /** A model whose shape and tokenizer the new one gets; its weights are not used. */
  readonly like: string;
  /** Times that each text is seen. Default 10. */
  readonly epochs?: number | undefined;
}

export interface TrainReport {
  readonly parameters: number;
  readonly steps: number;
  readonly tokens: number;
  /** Cross-entropy on held-out text, nats a token. */
  readonly heldOutBefore: number;
  readonly heldOutAfter: number;
  readonly tokensPerSecond: number;
  readonly seconds: number;
}

/** As GPT-3 was trained (Brown et al. 2020, appendix B). */
const ADAMW: AdamWSettings = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1 };

/** Weights, gradients and two moments in f32 within one 4 GiB memory, beside activations. */
const MAX_PARAMETERS = 150e6;

/** InputError or UsageError, one line, for anything wrong with model, data, options or the disk. */
export async function train(options: TrainOptions): Promise<TrainReport> {
  const started = performance.now();
  const { resume = false, signal, onProgress, log, threads } = options;
  const out = withoutSlash(options.out);
  const folder = `${out}.training`;
  if (await exists(out)) throw new UsageError(`${out} exists already: choose another --out, or delete it`);
  await refuseUnfinished(folder, resume);
  const like = await openCheckpoint(options.like);
  try {
    const parameters = like.bytes16 / 2;
    if (parameters > MAX_PARAMETERS)
      throw new InputError(
        `${like.source} has ${Math.round(parameters / 1e6)} million parameters: at most ${MAX_PARAMETERS / 1e6} million can be trained from nothing`,
      );
    const { contextLength, vocabularySize } = like.config;
    const result = resolveRun(options, contextLength, { context: 256, batch: 16, learningRate: 0.002 });
    const { context, batch, learningRate, seed } = result;
    const epochs = resolveEpochs(options.epochs, 10);
    const tokenizer = await like.tokenizer();
    const set = await trainingData({ name: like.source, vocabularySize, tokenizer }, options, result);
    const steps = stepsOfEpochs(epochs, set, batch);
    const backend = await createTrainingBackend({ threads });
    try {
      const training = new WasmTraining(backend);
      const tensors = initialTensors(like.config, new Random(seed));
      const model = await DenseModel.create(backend, training, like.config, tensors);
      const data = (await describeFiles(options.data)).map((file) => ({ ...file }));
      const { arithmetic } = backend.runtime;
      const identity = {
        model: sha256(JSON.stringify(like.config)),
        options: sha256(JSON.stringify({ ...result, epochs, arithmetic, examples: set.fingerprint, data })),
      };
      const objective = new NextToken(backend, training, context);
      const learner = new Learner({
        ...{ backend, training, model, objective, optimiser: ADAMW, together: batch, context },
      });
      const trained = await runTraining(learner, {
        ...{ set, steps, batch, learningRate, seed, folder, identity, resume, log },
        ...{ stage: "training", signal, onProgress },
      });
      await reportFullDisk(out, () => save(out, like, model, signal));
      await rm(folder, { recursive: true, force: true });
      return {
        parameters,
        steps: trained.steps,
        tokens: trained.steps * batch * context,
        heldOutBefore: trained.before,
        heldOutAfter: trained.after,
        tokensPerSecond: trained.tokensPerSecond,
        seconds: (performance.now() - started) / 1000,
      };
    } finally {
      await backend.close();
    }
  } finally {
    await like.close();
  }
}

/** A Hugging Face folder in half precision, under a temporary name until it is whole. */
async function save(
  out: string,
  like: Checkpoint,
  model: DenseModel,
  signal: AbortSignal | undefined,
): Promise<void> {
  const target = resolvePath(out);
  const partial = `${target}.partial`;
  await rm(partial, { recursive: true, force: true });
  await mkdir(partial, { recursive: true });
  const json = (name: string, value: unknown) =>
    writeAtomically(join(partial, name), (write) => write(prettyJson(value)));
  await json("config.json", { ...like.huggingFaceConfig, torch_dtype: "float16" });
  const tokenizer = await like.tokenizer();
  await json("tokenizer.json", tokenizer?.tokenizer);
  await json("tokenizer_config.json", tokenizer?.config);
  if (like.generationConfig) await json("generation_config.json", like.generationConfig);
  await writeSafetensors({
    path: join(partial, "model.safetensors"),
    tensors: model.tensors.map(({ name, shape, read }) => ({
      name,
      shape: [...shape],
      dtype: "F16" as const,
      data: async () => f32ToBytes(await read(), "F16"),
    })),
    metadata: { format: "pt" },
    signal,
  });
  await rename(partial, target);
  await syncFolder(join(target, ".."));
}
