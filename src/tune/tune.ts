/**
 * `tune`: a PocketLLM folder becomes a better one, by training its own small numbers or an adapter for it. What is
 * being done is kept beside the output (`<out>.tuning/`), so a run that was killed goes on and ends with the same
 * bytes.
 */
import { rm } from "node:fs/promises";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { openCheckpoint } from "../checkpoint/open.js";
import { createTrainingBackend, type WasmBackend } from "../compute/index.js";
import { exists, withoutSlash } from "../container/disk.js";
import type { PocketFolder } from "../container/folder.js";
import { openFolder } from "../container/reader.js";
import { FolderWriter } from "../container/writer.js";
import { InputError } from "../errors.js";
import type { TrainingSet } from "../training/data.js";
import { refuseUnfinished, trainingData } from "../training/options.js";
import { adapt } from "./adapt.js";
import { distil } from "./distil.js";
import { type ResultOptions, resolveTuning, type TuneOptions, type TuneReport } from "./options.js";
import { OriginalModel } from "./original.js";
import { selfData } from "./self-data.js";

/** Where an unfinished run to `out` keeps its state. */
export function stateFolder(out: string): string {
  return `${withoutSlash(out)}.tuning`;
}

/** InputError or UsageError, one line, for anything wrong with models, data, options or the disk. */
export async function tune(options: TuneOptions): Promise<TuneReport> {
  const started = performance.now();
  const state = stateFolder(options.out);
  if (await exists(options.out)) await FolderWriter.check(options.out, false);
  await refuseUnfinished(state, options.resume);
  const folder = await openFolder(options.folder);
  try {
    if (folder.manifest.adapter)
      throw new InputError(`${folder.name} has an adapter already: tune the folder that it was made from`);
    const result = resolveTuning(options, folder);
    const { original } = options;
    const checkpoint = original === undefined ? undefined : await openCheckpoint(original);
    try {
      if (checkpoint) checkVocabulary(folder, checkpoint);
      // Bad text is found before anything is decoded or written.
      const text = result.selfData === undefined ? await readText(folder, options, result) : undefined;
      const backend = await createTrainingBackend({ threads: options.threads });
      try {
        const report = await train({ options, result, folder, checkpoint, text, backend, state, started });
        await rm(state, { recursive: true, force: true });
        return { ...report, seconds: (performance.now() - started) / 1000 };
      } finally {
        await backend.close();
      }
    } finally {
      await checkpoint?.close();
    }
  } finally {
    await folder.close();
  }
}

/** Windows to distil on; instructions are examples of their own where an adapter learns to answer them. */
function readText(folder: PocketFolder, options: TuneOptions, result: ResultOptions): Promise<TrainingSet> {
  const { name, config } = folder;
  const packing = options.original === undefined ? "mixed" : "windows";
  const model = { name, vocabularySize: config.vocabularySize };
  return folder
    .tokenizer()
    .then((tokenizer) => trainingData({ ...model, tokenizer }, options, result, packing));
}

function checkVocabulary(folder: PocketFolder, checkpoint: Checkpoint): void {
  const own = folder.config.vocabularySize;
  const theirs = checkpoint.config.vocabularySize;
  if (own !== theirs)
    throw new InputError(
      `the original has a vocabulary of ${theirs} tokens, the folder of ${own}: give the model that was compressed`,
    );
}

interface Opened {
  readonly options: TuneOptions;
  readonly result: ResultOptions;
  readonly folder: PocketFolder;
  readonly checkpoint: Checkpoint | undefined;
  /** Undefined where the original is to write it. */
  readonly text: TrainingSet | undefined;
  readonly backend: WasmBackend;
  readonly state: string;
  readonly started: number;
}

async function train({ checkpoint, text, ...rest }: Opened): Promise<Omit<TuneReport, "seconds">> {
  const { result, folder, backend, options, state } = rest;
  const teacher = checkpoint && (await OriginalModel.open(backend, checkpoint));
  const written = async () => {
    const { signal, onProgress } = options;
    const tokenizer = await folder.tokenizer();
    return await selfData({ backend, teacher: teacher!, tokenizer, result, state, signal, onProgress });
  };
  const run = { ...rest, set: text ?? (await written()) };
  if (result.adapter) return await adapt({ ...run, adapter: result.adapter, teacher });
  // Without an adapter there is an original: resolveTuning refuses all else.
  return await distil({ ...run, teacher: teacher! });
}
