/**
 * A whole evaluation from paths to a result that says what it was made from (Node only): models by the hash of
 * their manifest or weights, texts and tasks by theirs, tool and options. Kept in a journal while it runs.
 */
import { mkdir, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { hashAdapter } from "../adapter/open.js";
import { FileSource } from "../checkpoint/file-source.js";
import { openCheckpoint } from "../checkpoint/open.js";
import { writeAtomically } from "../checkpoint/safetensors-write.js";
import type { JsonValue } from "../codec/coded.js";
import { exists, hashRange, sha256 } from "../container/disk.js";
import { describeFiles, type InputFile } from "../container/input-files.js";
import { canonicalJson, prettyJson } from "../container/json.js";
import { InputError, UsageError } from "../errors.js";
import { type LocalModel, localModel } from "../hub/local-model.js";
import type { OnProgress } from "../progress.js";
import { loadModel } from "../runtime/load.js";
import { readCorpus } from "../text/corpus.js";
import type { CacheFormat } from "../transformer/kv-cache.js";
import { TOOL, VERSION } from "../version.js";
import { type Evaluation, evaluate } from "./evaluate.js";
import { type FoundTask, findTask, type TaskFile } from "./hub-task.js";
import { JournalFile } from "./journal.js";
import type { Protocol } from "./protocol.js";
import { evaluateTasks, type TaskResult } from "./tasks.js";

export interface RunEvaluationOptions {
  /** Path of a model, or its name on the hub, see `localModel`. */
  readonly model: string;
  /** Folder of a LoRA adapter in PEFT's form, used on top of the model. */
  readonly adapter?: string | undefined;
  /** The same of the model to compare with on the text. */
  readonly reference?: string | undefined;
  /** Path of a text, see `readCorpus`. This or tasks, or both. */
  readonly text?: string | undefined;
  readonly protocol?: Protocol | undefined;
  readonly context?: number | undefined;
  readonly windows?: number | undefined;
  /** Task files, or benchmarks on the hub, see `findTask`. */
  readonly tasks?: readonly string[] | undefined;
  readonly limit?: number | undefined;
  readonly bos?: boolean | undefined;
  /** How the model keeps keys and values. Default f32, which the reference always has: weights are compared. */
  readonly kvCache?: CacheFormat | undefined;
  /** Where the result is written as JSON. */
  readonly out?: string | undefined;
  /** Folder of the journal. Default: that of `out`; without either none is kept. */
  readonly journal?: string | undefined;
  /** Worker threads. Default: one a core. The result does not depend on it. */
  readonly threads?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
  /** A line for the user, such as that a journal was found. */
  readonly onNote?: ((line: string) => void) | undefined;
}

/**
 * Which model: of a PocketLLM folder the hash of its manifest, which names every file by its own. `path` is what
 * the user gave; `commit` is there for a model of the hub.
 */
export type ModelIdentity = { readonly path: string; readonly commit?: string } & (
  | { readonly format: "pocketllm"; readonly manifestSha256: string }
  | { readonly format: string; readonly sha256: string }
);

export interface EvaluationReport extends Partial<Evaluation> {
  readonly tasks?: Readonly<Record<string, TaskResult>>;
  readonly model: ModelIdentity;
  readonly adapter?: { readonly path: string; readonly sha256: string };
  readonly reference?: ModelIdentity;
  readonly text?: InputFile;
  readonly taskFiles?: readonly TaskFile[];
  readonly tool: { readonly name: string; readonly version: string };
  readonly options: Readonly<Record<string, string | number | boolean>>;
}

/**
 * Reads and checks everything, then loads the models and measures. InputError and UsageError, one line each,
 * as `evaluate` and `evaluateTasks` throw them, and for options that do not go together.
 */
export async function runEvaluation(options: RunEvaluationOptions): Promise<EvaluationReport> {
  checkOptions(options);
  const { out, signal, onProgress, threads, bos, limit, protocol, context, windows } = options;
  if (out !== undefined) await checkWritable(out);
  const text = options.text === undefined ? undefined : await readCorpus(options.text);
  const hub = { signal, onProgress, onNote: options.onNote };
  const found: FoundTask[] = [];
  for (const source of options.tasks ?? []) found.push(await findTask(source, hub));
  const tasks = found.map(({ task }) => task);
  checkNames(tasks.map(({ name }) => name));
  const models: Models = {
    model: await localModel(options.model, hub),
    reference: options.reference === undefined ? undefined : await localModel(options.reference, hub),
  };
  const provenance = await describe(options, models, found);
  const journal = await openJournal(options, provenance);
  const shared = { signal, onProgress, ...(journal && { journal }) };
  let finished = false;
  try {
    const load = (path: string, kvCache: CacheFormat, adapter?: string | undefined) =>
      loadModel(path, { adapter, threads, kvCache, decoding: "exact", signal, onProgress });
    const model = await load(models.model.path, options.kvCache ?? "f32", options.adapter);
    let report: EvaluationReport;
    try {
      const reference = models.reference && (await load(models.reference.path, "f32"));
      try {
        const measured =
          text && (await evaluate({ model, reference, text, protocol, context, windows, ...shared }));
        const answered = tasks.length > 0 && (await evaluateTasks({ model, tasks, limit, bos, ...shared }));
        report = { ...measured, ...(answered && { tasks: answered }), ...provenance };
      } finally {
        await reference?.close();
      }
    } finally {
      await model.close();
    }
    if (out !== undefined) await writeAtomically(out, (write) => write(prettyJson(report)));
    finished = true;
    return report;
  } finally {
    await (finished ? journal?.remove() : journal?.close());
  }
}

function checkOptions(options: RunEvaluationOptions): void {
  const { text, tasks = [], reference, protocol, context, windows, limit, bos } = options;
  if (text === undefined && tasks.length === 0)
    throw new UsageError("nothing to measure: give --text, --tasks or both");
  const needs = (given: Record<string, unknown>, needed: string) => {
    for (const [name, value] of Object.entries(given))
      if (value !== undefined) throw new UsageError(`--${name} has no meaning without --${needed}`);
  };
  if (text === undefined) needs({ reference, protocol, context, windows }, "text");
  if (tasks.length === 0) needs({ limit, bos }, "tasks");
  checkNames(tasks.map((path) => basename(path)));
}

function checkNames(names: readonly string[]): void {
  const twice = names.find((name, i) => names.indexOf(name) < i);
  if (twice !== undefined)
    throw new UsageError(`two task files are named ${twice}: rename one, or give one of them`);
}

async function checkWritable(out: string): Promise<void> {
  const found = await stat(out).catch(() => undefined);
  if (found && !found.isFile()) throw new InputError(`${out} is not a file: name one for the result`);
  await mkdir(dirname(out), { recursive: true });
}

type Provenance = Pick<
  EvaluationReport,
  "model" | "adapter" | "reference" | "text" | "taskFiles" | "tool" | "options"
>;

interface Models {
  readonly model: LocalModel;
  readonly reference: LocalModel | undefined;
}

async function describe(
  options: RunEvaluationOptions,
  models: Models,
  tasks: readonly FoundTask[],
): Promise<Provenance> {
  const { adapter, reference, text, signal, onProgress } = options;
  const { protocol = "default", context, windows, limit, bos, kvCache } = options;
  onProgress?.({ stage: "hashing the model", done: 0, total: 1 });
  const given = { ...(text !== undefined && { protocol }), context, windows, limit, bos, kvCache };
  return {
    model: await identify(options.model, models.model, signal),
    ...(adapter !== undefined && { adapter: { path: adapter, sha256: await hashAdapter(adapter) } }),
    ...(reference !== undefined &&
      models.reference && { reference: await identify(reference, models.reference, signal) }),
    ...(text !== undefined && { text: (await describeFiles([text]))[0] }),
    ...(tasks.length > 0 && { taskFiles: tasks.map(({ file }) => file) }),
    tool: { name: TOOL, version: VERSION },
    options: Object.fromEntries(
      Object.entries(given).flatMap(([name, value]) => (value === undefined ? [] : [[name, value]])),
    ),
  };
}

async function identify(
  given: string,
  { path, commit }: LocalModel,
  signal: AbortSignal | undefined,
): Promise<ModelIdentity> {
  const named = { path: given, ...(commit !== undefined && { commit }) };
  const manifest = join(path, "pocketllm.json");
  if (await exists(manifest).catch(() => false)) {
    const file = await FileSource.open(manifest);
    try {
      const manifestSha256 = await hashRange(file, 0, file.size, signal);
      return { ...named, format: "pocketllm", manifestSha256 };
    } finally {
      await file.close();
    }
  }
  const checkpoint = await openCheckpoint(path);
  try {
    return { ...named, format: checkpoint.format, sha256: await checkpoint.hash(signal) };
  } finally {
    await checkpoint.close();
  }
}

async function openJournal(
  { out, journal: folder = out === undefined ? undefined : dirname(out), onNote }: RunEvaluationOptions,
  { model, adapter, reference, taskFiles, ...rest }: Provenance,
): Promise<JournalFile | undefined> {
  if (folder === undefined) return undefined;
  // A model that was moved is the same model, and so is one of another commit with the same files.
  const withoutPath = ({ path: _, commit: __, ...identity }: ModelIdentity) => identity;
  const described = {
    ...rest,
    ...(taskFiles && { taskFiles: taskFiles.map(({ dataset: _, ...file }) => file) }),
    model: withoutPath(model),
    ...(adapter && { adapter: adapter.sha256 }),
    ...(reference && { reference: withoutPath(reference) }),
  };
  const fingerprint = sha256(canonicalJson(described as unknown as JsonValue));
  const path = join(folder, `eval-${fingerprint.slice(0, 16)}.journal`);
  const journal = await JournalFile.open(path, fingerprint);
  if (journal.size > 0) onNote?.(`going on after ${journal.size} finished pieces in ${path}`);
  return journal;
}
