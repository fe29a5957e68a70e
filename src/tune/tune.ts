/**
 * `tune`: a PocketLLM folder becomes a better one of the same size. Its row scales, tables and norms are
 * trained so that it predicts what the original model predicts; codes stay. What is being done is kept beside
 * the output (`<out>.tuning/`), so a run that was killed goes on and ends with the same bytes.
 */
import { createHash } from "node:crypto";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { openCheckpoint } from "../checkpoint/open.js";
import { createBackend, type WasmBackend } from "../compute/index.js";
import { WasmTraining } from "../compute/wasm/training.js";
import { exists } from "../container/disk.js";
import type { PocketFolder } from "../container/folder.js";
import { describeFiles } from "../container/input-files.js";
import type { JsonObject } from "../container/manifest.js";
import { openFolder } from "../container/reader.js";
import { FolderWriter } from "../container/writer.js";
import { InputError, UsageError } from "../errors.js";
import { checkWhole } from "../options.js";
import type { OnProgress } from "../progress.js";
import { createTokenizer } from "../text/tokenizer.js";
import { decidedSteps, stepsWithin } from "./budget.js";
import { CodedModel } from "./coded-model.js";
import { readTrainingSet, type TrainingSet } from "./data.js";
import { Distiller, TABLES_EVERY } from "./distiller.js";
import { DivergenceGuard } from "./diverge.js";
import { EarlyStop, type Measurement } from "./early-stop.js";
import { TrainingLog } from "./log.js";
import { ExampleOrder } from "./order.js";
import { OriginalModel } from "./original.js";
import { saveTuned } from "./save.js";
import { createSchedule } from "./schedule.js";
import { readTrainingState, type StateTensor, writeTrainingState } from "./state.js";

export interface TuneOptions {
  /** The PocketLLM folder to tune. */
  readonly folder: string;
  /** The model it was made from: the teacher. */
  readonly original: string;
  /** Training text: .txt, .jsonl or .json files. */
  readonly data: readonly string[];
  readonly out: string;
  /** Tokens to train on, each seen once while the data lasts. Default 65536, or what `timeBudget` allows. */
  readonly tokens?: number | undefined;
  /**
   * Seconds for everything but writing the result, instead of `tokens`: how many fit is measured before training.
   * Two runs may so end with different bytes; a run and its resumption do not.
   */
  readonly timeBudget?: number | undefined;
  /** Tokens of a window. Default 256, or the model's context where that is shorter. */
  readonly context?: number | undefined;
  /** Windows of a step. Default 1. */
  readonly batch?: number | undefined;
  /** Relative to the size of what is trained. Default 0.005. */
  readonly learningRate?: number | undefined;
  /** Seed of the order of the windows and of what is held out. Default 0. */
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

/** Held-out text is measured this often in a run, and a state is kept then. */
const MEASUREMENTS = 10;
/** Most held-out tokens that are measured on. */
const HELD_OUT_TOKENS = 4096;

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
  if (!options.resume && (await exists(state)))
    throw new UsageError(
      `${state} holds an unfinished run: run with --resume to go on with it, or delete it`,
    );
  const folder = await openFolder(options.folder);
  try {
    const checkpoint = await openCheckpoint(options.original);
    try {
      const result = resolve(options, folder.config.contextLength);
      const set = await trainingSet(folder, checkpoint, options, result);
      const backend = await createBackend({ threads: options.threads });
      try {
        const run = await TuneRun.open({ options, result, folder, checkpoint, set, backend, state, started });
        const report = await run.train();
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
  const {
    tokens = 65536,
    context = Math.min(256, contextLength),
    batch = 1,
    learningRate = 0.005,
    seed = 0,
  } = options;
  checkWhole("context", context, 2, contextLength);
  checkWhole("batch", batch, 1, 1024);
  checkWhole("tokens", tokens, context * batch, 2 ** 40);
  if (options.timeBudget !== undefined && options.tokens !== undefined)
    throw new UsageError("give tokens or a time budget, not both");
  checkWhole("seed", seed, 0, 2 ** 32 - 1);
  // Its errors are about the rate alone here.
  createSchedule({ learningRate, steps: 1 });
  return { tokens, context, batch, learningRate, seed };
}

/** The data, tokenised; refuses an original that is not the folder's. */
async function trainingSet(
  folder: PocketFolder,
  checkpoint: Checkpoint,
  { data, signal }: TuneOptions,
  { context, seed }: ResultOptions,
): Promise<TrainingSet> {
  const own = folder.config;
  const theirs = checkpoint.config;
  if (own.vocabularySize !== theirs.vocabularySize)
    throw new InputError(
      `the original has a vocabulary of ${theirs.vocabularySize} tokens, the folder of ${own.vocabularySize}: give the model that was compressed`,
    );
  const files = await folder.tokenizer();
  if (!files) throw new InputError(`${folder.name} has no tokenizer: text cannot be used`);
  const options = { packing: "windows" as const, context, seed, signal };
  return await readTrainingSet(createTokenizer(files), {
    ...options,
    files: data,
    vocabularySize: own.vocabularySize,
  });
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

class TuneRun {
  readonly #parts: RunParts;
  readonly #tuning: JsonObject;
  readonly #model: CodedModel;
  readonly #distiller: Distiller;
  readonly #heldOut: readonly Int32Array[];
  readonly #losses: number[] = [];
  readonly #measurements: Measurement[] = [];
  readonly #stop = new EarlyStop({ patience: MEASUREMENTS });
  readonly #guard: DivergenceGuard;

  static async open(asked: RunParts): Promise<TuneRun> {
    const { folder, checkpoint, backend, set, options } = asked;
    const training = new WasmTraining(backend);
    const model = await CodedModel.open(backend, training, folder);
    const teacher = await OriginalModel.open(backend, checkpoint);
    const { batch: windows, context } = asked.result;
    const distiller = new Distiller(backend, training, teacher, model, { windows, context });
    const tokens = await tokensOf(asked, distiller);
    const result = { ...asked.result, tokens };
    const parts = { ...asked, result };
    // Spread: an interface is no JsonObject.
    const data = (await describeFiles(options.data)).map((file) => ({ ...file }));
    const { arithmetic } = backend.runtime;
    const tuning = { method: "distill", ...result, arithmetic, examples: set.fingerprint, data };
    return new TuneRun(parts, tuning, model, distiller);
  }

  private constructor(parts: RunParts, tuning: JsonObject, model: CodedModel, distiller: Distiller) {
    this.#parts = parts;
    this.#tuning = tuning;
    this.#model = model;
    this.#distiller = distiller;
    this.#heldOut = heldOutOf(parts);
    const { learningRate } = parts.result;
    this.#guard = new DivergenceGuard({ learningRate });
  }

  async train(): Promise<Omit<TuneReport, "seconds">> {
    const { options, result, set, state } = this.#parts;
    const { signal, onProgress } = options;
    const { tokens, context, batch, learningRate, seed } = result;
    const steps = Math.max(1, Math.floor(tokens / (context * batch)));
    const schedule = createSchedule({ learningRate, steps });
    const order = new ExampleOrder(set.training.length, seed);
    const every = Math.max(1, Math.ceil(steps / MEASUREMENTS));
    await mkdir(state, { recursive: true });
    const first = await this.#resume();
    const log = await TrainingLog.open(options.log ?? join(state, "log.jsonl"), first);
    const begun = performance.now();
    let trained = 0;
    try {
      if (first === 0) await this.#measure(-1);
      for (let step = first; step < steps && !this.#stop.stop; step++) {
        const windows = Array.from({ length: batch }, (_, i) => set.training[order.at(step * batch + i)].ids);
        const rate = schedule(step);
        const { loss, gradientNorm } = await this.#distiller.step(
          step,
          windows,
          { scales: rate, tables: rate, norm: rate },
          (found) => this.#guard.check(step, found.loss, found.gradientNorm),
          signal,
        );
        this.#losses.push(loss);
        trained += context * batch;
        const tokensPerSecond = trained / ((performance.now() - begun) / 1000);
        const last = step === steps - 1;
        const heldOut = last || (step + 1) % every === 0 ? await this.#measure(step) : undefined;
        await log.append({ step, loss, learningRate: rate, gradientNorm, tokensPerSecond, heldOut });
        if (heldOut !== undefined) {
          await log.flush();
          await this.#keep(step + 1);
        }
        const detail = `loss ${loss.toFixed(3)}, held out ${this.#measurements.at(-1)?.loss.toFixed(4)}, ${tokensPerSecond.toFixed(0)} tokens/s`;
        onProgress?.({ stage: "distilling", done: step + 1, total: steps, detail });
      }
    } finally {
      await log.close();
    }
    const { out } = options;
    const { folder } = this.#parts;
    const [before, after] = [this.#measurements[0].loss, this.#measurements.at(-1)!.loss];
    if (!(after < before))
      throw new InputError(
        `the divergence on held-out text is ${before.toPrecision(4)} before and ${after.toPrecision(4)} after training: nothing is written; try a lower learning rate or more text`,
      );
    const weightBytes = await saveTuned({
      out,
      folder,
      model: this.#model,
      tuning: this.#tuning,
      signal,
      onProgress,
    });
    return {
      weightBytes,
      ratio: folder.bytes16 / weightBytes,
      steps: this.#losses.length,
      tokens: this.#losses.length * context * batch,
      heldOutBefore: before,
      heldOutAfter: after,
      tokensPerSecond: trained / ((performance.now() - begun) / 1000),
    };
  }

  async #measure(step: number): Promise<number> {
    const loss = await this.#distiller.measure(this.#heldOut, this.#parts.options.signal);
    this.#record({ step, loss });
    return loss;
  }

  #record(measurement: Measurement): void {
    this.#guard.checkHeldOut(measurement.step, measurement.loss);
    this.#measurements.push(measurement);
    this.#stop.add(measurement);
  }

  get #identity() {
    const { manifest } = this.#parts.folder;
    const model = [...manifest.files].map(([name, { sha256 }]) => `${name} ${sha256}`).join("\n");
    return {
      model: createHash("sha256").update(model).digest("hex"),
      options: createHash("sha256").update(JSON.stringify(this.#tuning)).digest("hex"),
    };
  }

  get #stateFile(): string {
    return join(this.#parts.state, "state.safetensors");
  }

  #tensors(): StateTensor[] {
    const { adam } = this.#distiller;
    const tensor = (name: string, values: Float32Array): StateTensor => ({
      name,
      length: values.length,
      read: () => values,
      write: (read) => values.set(read),
    });
    return adam.parameters.flatMap(({ name, value }) => {
      const { mean, square } = adam.moments.get(name)!;
      return [tensor(name, value), tensor(`${name}.mean`, mean), tensor(`${name}.square`, square)];
    });
  }

  async #keep(step: number): Promise<void> {
    const history = { step, losses: this.#losses, heldOut: this.#measurements };
    await writeTrainingState(this.#stateFile, this.#identity, history, this.#tensors());
  }

  /** The next step of an interrupted run, or 0. */
  async #resume(): Promise<number> {
    if (!this.#parts.options.resume) return 0;
    const found = await readTrainingState(this.#stateFile, this.#identity, this.#tensors());
    if (!found) return 0;
    for (const [step, loss] of found.losses.entries()) {
      this.#losses.push(loss);
      this.#guard.check(step, loss, 0);
    }
    for (const measurement of found.heldOut) this.#record(measurement);
    return found.step;
  }
}

/** What is measured on, of the examples that are held out. */
function heldOutOf({ set, result }: RunParts): Int32Array[] {
  return set.heldOut
    .slice(0, Math.max(1, Math.floor(HELD_OUT_TOKENS / result.context)))
    .map(({ ids }) => ids);
}

/** The tokens of the run: as asked for, or as many as fit the time budget. */
async function tokensOf(parts: RunParts, distiller: Distiller): Promise<number> {
  const { options, result, set, state, started } = parts;
  const { timeBudget, signal } = options;
  const { tokens, context, batch } = result;
  if (timeBudget === undefined) return tokens;
  const steps = await decidedSteps(state, options.resume ?? false, async () => {
    options.onProgress?.({ stage: "measuring the pace", done: 0, total: 1 });
    const windows = Array.from({ length: batch }, (_, i) => set.training[i % set.training.length].ids);
    const timed = async (run: () => Promise<unknown>) => {
      const begun = performance.now();
      await run();
      return (performance.now() - begun) / 1000;
    };
    // The first reads the teacher's layers, and allocates.
    await distiller.gradients(windows, true, signal);
    const tables = await timed(() => distiller.gradients(windows, true, signal));
    const plain = await timed(() => distiller.gradients(windows, false, signal));
    const measuring = await timed(() => distiller.measure(heldOutOf(parts), signal));
    const passed = (performance.now() - started) / 1000;
    return stepsWithin(timeBudget, {
      secondsPerStep: plain + (tables - plain) / TABLES_EVERY,
      secondsBeside: passed + (MEASUREMENTS + 1) * measuring,
    });
  });
  return steps * context * batch;
}
