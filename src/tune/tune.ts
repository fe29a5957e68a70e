/**
 * `tune`: a PocketLLM folder becomes a better one of the same size. Its row scales, tables and norms are
 * trained so that it predicts what the original model predicts; codes stay. What is being done is kept beside
 * the output (`<out>.tuning/`), so a run that was killed goes on and ends with the same bytes.
 */
import { rm } from "node:fs/promises";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { openCheckpoint } from "../checkpoint/open.js";
import { createBackend, type WasmBackend } from "../compute/index.js";
import { WasmTraining } from "../compute/wasm/training.js";
import { exists, sha256 } from "../container/disk.js";
import type { PocketFolder } from "../container/folder.js";
import { describeFiles } from "../container/input-files.js";
import type { JsonObject } from "../container/manifest.js";
import { openFolder } from "../container/reader.js";
import { FolderWriter } from "../container/writer.js";
import { InputError, UsageError } from "../errors.js";
import { checkWhole } from "../options.js";
import { decidedSteps, stepsWithin } from "../training/budget.js";
import type { TrainingSet } from "../training/data.js";
import { type RunOptions, refuseUnfinished, resolveRun, trainingWindows } from "../training/options.js";
import { MEASUREMENTS, measuredExamples, runTraining } from "../training/trainer.js";
import { CodedModel } from "./coded-model.js";
import { Distiller, TABLES_EVERY } from "./distiller.js";
import { OriginalModel } from "./original.js";
import { saveTuned } from "./save.js";

/** Text to learn on; a batch is 1 window by default, the learning rate .005 of the size of what is trained. */
export interface TuneOptions extends RunOptions {
  /** The PocketLLM folder to tune. */
  readonly folder: string;
  /** The model it was made from: the teacher. */
  readonly original: string;
  /** Tokens to train on, each seen once while the data lasts. Default 65536, or what `timeBudget` allows. */
  readonly tokens?: number | undefined;
  /**
   * Seconds for everything but writing the result, instead of `tokens`: how many fit is measured before training.
   * Two runs may so end with different bytes; a run and its resumption do not.
   */
  readonly timeBudget?: number | undefined;
}

export interface TuneReport {
  readonly weightBytes: number;
  readonly ratio: number;
  readonly steps: number;
  readonly tokens: number;
  /** Divergence from the original on held-out text, nats a token. */
  readonly heldOutBefore: number;
  readonly heldOutAfter: number;
  readonly tokensPerSecond: number;
  readonly seconds: number;
}

/** Options that change the result, with their defaults. */
interface ResultOptions extends JsonObject {
  readonly tokens: number;
  readonly context: number;
  readonly batch: number;
  readonly learningRate: number;
  readonly seed: number;
}

/** Where an unfinished run to `out` keeps its state. */
export function stateFolder(out: string): string {
  return `${out.replace(/[\\/]+$/, "")}.tuning`;
}

/** InputError or UsageError, one line, for anything wrong with models, data, options or the disk. */
export async function tune(options: TuneOptions): Promise<TuneReport> {
  const started = performance.now();
  const state = stateFolder(options.out);
  if (await exists(options.out)) await FolderWriter.check(options.out, false);
  await refuseUnfinished(state, options.resume);
  const folder = await openFolder(options.folder);
  try {
    const checkpoint = await openCheckpoint(options.original);
    try {
      const result = resolve(options, folder.config.contextLength);
      const set = await trainingSet(folder, checkpoint, options, result);
      const backend = await createBackend({ threads: options.threads });
      try {
        const parts = { options, result, folder, checkpoint, set, backend, state, started };
        const report = await trainAndSave(parts);
        await rm(state, { recursive: true, force: true });
        return { ...report, seconds: (performance.now() - started) / 1000 };
      } finally {
        await backend.close();
      }
    } finally {
      await checkpoint.close();
    }
  } finally {
    await folder.close();
  }
}

function resolve(options: TuneOptions, contextLength: number): ResultOptions {
  const run = resolveRun(options, contextLength, { batch: 1, learningRate: 0.005 });
  const { tokens = 65536, timeBudget } = options;
  checkWhole("tokens", tokens, run.context * run.batch, 2 ** 40);
  if (timeBudget !== undefined && options.tokens !== undefined)
    throw new UsageError("give tokens or a time budget, not both");
  return { tokens, ...run };
}

/** The data, tokenised; refuses an original that is not the folder's. */
async function trainingSet(
  folder: PocketFolder,
  checkpoint: Checkpoint,
  options: TuneOptions,
  result: ResultOptions,
): Promise<TrainingSet> {
  const own = folder.config;
  const theirs = checkpoint.config;
  if (own.vocabularySize !== theirs.vocabularySize)
    throw new InputError(
      `the original has a vocabulary of ${theirs.vocabularySize} tokens, the folder of ${own.vocabularySize}: give the model that was compressed`,
    );
  const { name } = folder;
  const { vocabularySize } = own;
  return await trainingWindows(
    { name, vocabularySize, tokenizer: await folder.tokenizer() },
    options,
    result,
  );
}

interface RunParts {
  readonly options: TuneOptions;
  readonly result: ResultOptions;
  readonly folder: PocketFolder;
  readonly checkpoint: Checkpoint;
  readonly set: TrainingSet;
  readonly backend: WasmBackend;
  /** The folder of the unfinished run. */
  readonly state: string;
  /** When the run began, in milliseconds. */
  readonly started: number;
}

async function trainAndSave(parts: RunParts): Promise<Omit<TuneReport, "seconds">> {
  const { options, folder, checkpoint, set, backend, state } = parts;
  const { signal, onProgress, log, resume = false } = options;
  const { context, batch, learningRate, seed } = parts.result;
  const training = new WasmTraining(backend);
  const model = await CodedModel.open(backend, training, folder);
  const teacher = await OriginalModel.open(backend, checkpoint);
  const distiller = new Distiller(backend, training, teacher, model, { windows: batch, context });
  const steps = await stepsOf(parts, distiller);
  const result = { ...parts.result, tokens: steps * context * batch };
  // Spread: an interface is no JsonObject.
  const data = (await describeFiles(options.data)).map((file) => ({ ...file }));
  const { arithmetic } = backend.runtime;
  const tuning = { method: "distill", ...result, arithmetic, examples: set.fingerprint, data };
  const files = [...folder.manifest.files].map(([name, { sha256 }]) => `${name} ${sha256}`).join("\n");
  const identity = {
    model: sha256(files),
    options: sha256(JSON.stringify(tuning)),
  };
  const trained = await runTraining(distiller, {
    ...{ set, steps, batch, learningRate, seed, folder: state, identity, resume, log },
    ...{ stage: "distilling", signal, onProgress },
  });
  const weightBytes = await saveTuned({ out: options.out, folder, model, tuning, signal, onProgress });
  return {
    weightBytes,
    ratio: folder.bytes16 / weightBytes,
    steps: trained.steps,
    tokens: trained.steps * context * batch,
    heldOutBefore: trained.before,
    heldOutAfter: trained.after,
    tokensPerSecond: trained.tokensPerSecond,
  };
}

/** The steps of the run: for the tokens asked for, or as many as fit the time budget. */
async function stepsOf(parts: RunParts, distiller: Distiller): Promise<number> {
  const { options, result, set, state, started } = parts;
  const { timeBudget, signal } = options;
  const { tokens, context, batch } = result;
  if (timeBudget === undefined) return Math.floor(tokens / (context * batch));
  return await decidedSteps(state, options.resume ?? false, async () => {
    options.onProgress?.({ stage: "measuring the pace", done: 0, total: 1 });
    const examples = Array.from({ length: batch }, (_, i) => set.training[i % set.training.length]);
    const timed = async (run: () => Promise<unknown>) => {
      const begun = performance.now();
      await run();
      return (performance.now() - begun) / 1000;
    };
    // The first reads the teacher's layers, and allocates.
    await distiller.gradients(examples, true, signal);
    const tables = await timed(() => distiller.gradients(examples, true, signal));
    const plain = await timed(() => distiller.gradients(examples, false, signal));
    const measuring = await timed(() => distiller.measure(measuredExamples(set), signal));
    const passed = (performance.now() - started) / 1000;
    return stepsWithin(timeBudget, {
      secondsPerStep: plain + (tables - plain) / TABLES_EVERY,
      secondsBeside: passed + (MEASUREMENTS + 1) * measuring,
    });
  });
}
