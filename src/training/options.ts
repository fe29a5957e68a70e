/** What every training run is asked for and refuses, whatever it trains. */
import type { TokenizerFiles } from "../checkpoint/checkpoint.js";
import { exists } from "../container/disk.js";
import { InputError, UsageError } from "../errors.js";
import { checkWhole } from "../options.js";
import type { OnProgress } from "../progress.js";
import { createTokenizer } from "../text/tokenizer.js";
import { type Packing, readTrainingSet, type TrainingSet } from "./data.js";
import { createSchedule } from "./schedule.js";

export interface RunOptions {
  /** Text: .txt, .jsonl or .json files. */
  readonly data: readonly string[];
  readonly out: string;
  /** Tokens of a window. Default 256, 1024 for distilling, or the model's context where that is shorter. */
  readonly context?: number | undefined;
  /** Windows of a step. */
  readonly batch?: number | undefined;
  readonly learningRate?: number | undefined;
  /** Seed of everything random: the order of the windows, what is held out, first weights. Default 0. */
  readonly seed?: number | undefined;
  /** Threads. Default: the cores, at most 8. The result does not depend on it. */
  readonly threads?: number | undefined;
  /** A copy of the log, a JSON object a step, is kept here. Default: only while the run lasts. */
  readonly log?: string | undefined;
  /** Go on with an interrupted run of the same options. */
  readonly resume?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** UsageError for values out of range. */
export function resolveRun(
  options: RunOptions,
  contextLength: number,
  defaults: { readonly context: number; readonly batch: number; readonly learningRate: number },
) {
  const {
    context = Math.min(defaults.context, contextLength),
    batch = defaults.batch,
    learningRate = defaults.learningRate,
    seed = 0,
  } = options;
  checkWhole("context", context, 2, contextLength);
  checkWhole("batch", batch, 1, 1024);
  checkWhole("seed", seed, 0, 2 ** 32 - 1);
  // Its errors are about the rate alone here.
  createSchedule({ learningRate, steps: 1 });
  return { context, batch, learningRate, seed };
}

/** UsageError for values out of range. */
export function resolveEpochs(epochs: number | undefined, byDefault: number): number {
  const resolved = epochs ?? byDefault;
  checkWhole("epochs", resolved, 1, 10_000);
  return resolved;
}

/** Whole steps, at least one. */
export function stepsOfEpochs(epochs: number, { training }: TrainingSet, batch: number): number {
  return Math.max(1, Math.floor((epochs * training.length) / batch));
}

/** UsageError when an unfinished run is in `folder` and nobody asked to go on with it. */
export async function refuseUnfinished(folder: string, resume: boolean | undefined): Promise<void> {
  if (!resume && (await exists(folder)))
    throw new UsageError(
      `${folder} holds an unfinished run: run with --resume to go on with it, or delete it`,
    );
}

/** The text, in windows unless `packing` says else. InputError for a model, called `name`, without a tokenizer, or text that cannot be used. */
export async function trainingData(
  model: {
    readonly name: string;
    readonly vocabularySize: number;
    readonly tokenizer: TokenizerFiles | null;
  },
  { data, signal }: RunOptions,
  { context, seed }: { readonly context: number; readonly seed: number },
  packing: Packing = "windows",
): Promise<TrainingSet> {
  const { name, vocabularySize, tokenizer } = model;
  if (!tokenizer) throw new InputError(`${name} has no tokenizer: text cannot be used`);
  const options = { files: data, packing, context, vocabularySize, seed, signal };
  return await readTrainingSet(createTokenizer(tokenizer), options);
}
