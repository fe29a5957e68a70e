/** Tasks as users name them: a task file, or a benchmark on the hub (Node only). */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { describeFiles, type InputFile } from "../container/input-files.js";
import { InputError } from "../errors.js";
import type { DatasetSplit } from "../hub/dataset.js";
import { parseDatasetId } from "../hub/id.js";
import type { HubOptions } from "../hub/repository.js";
import { type Benchmark, findBenchmark, isBenchmark, Row } from "./benchmarks.js";
import { readParquet } from "./parquet.js";
import { type Question, readTask, type Task } from "./task-file.js";

/** What a task was made from. Of a data set `name` is the task's, bytes and hash are of its files one after the other. */
export interface TaskFile extends InputFile {
  readonly dataset?: {
    /** `org/name` on the hub. */
    readonly id: string;
    readonly config: string;
    readonly split: string;
    readonly commit: string;
    readonly files: readonly InputFile[];
  };
}

export interface FoundTask {
  readonly task: Task;
  readonly file: TaskFile;
}

/**
 * `source`: the path of a task file, or where there is no such file, `org/name[:config][@revision]` of a
 * benchmark's data set on the hub or the harness's name of it (`arc_easy`). InputError, one line, when it cannot
 * be had or a row is not as it must be.
 */
export async function findTask(source: string, options: HubOptions = {}): Promise<FoundTask> {
  const id = (await isHere(source)) ? null : parseDatasetId(source);
  // One word that is no benchmark's name is a file that is not there.
  if (id === null || !(id.name.includes("/") || isBenchmark(id.name)) || /\.jsonl?$/.test(id.name)) {
    const task = await readTask(source);
    return { task, file: (await describeFiles([source]))[0] };
  }
  const benchmark = findBenchmark(id.name, id.config);
  const { fetchSplit } = await import("../hub/dataset.js");
  const name = id.name.includes("/") ? id.name : benchmark.datasets[0];
  const { config, split } = benchmark;
  const data = await fetchSplit({ name, config, revision: id.revision }, split, options);
  const questions = await readQuestions(benchmark, data);
  return { task: { name: benchmark.name, kind: benchmark.kind, questions }, file: describe(benchmark, data) };
}

async function isHere(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}

async function readQuestions(
  benchmark: Benchmark,
  { name, config, split, files }: DatasetSplit,
): Promise<Question[]> {
  const questions: Question[] = [];
  for (const file of files) {
    const rows = await readParquet(file.bytes, benchmark.columns, `${name} ${file.name}`);
    for (const row of rows)
      questions.push(benchmark.question(new Row(row, `${name} ${config} ${split} row ${questions.length}`)));
  }
  if (questions.length === 0) throw new InputError(`${name}: ${config} ${split} has no rows`);
  return questions;
}

function describe({ name }: Benchmark, { name: id, config, split, commit, files }: DatasetSplit): TaskFile {
  const hash = createHash("sha256");
  for (const { bytes } of files) hash.update(bytes);
  return {
    name,
    bytes: files.reduce((sum, { bytes }) => sum + bytes.byteLength, 0),
    sha256: hash.digest("hex"),
    dataset: {
      ...{ id, config, split, commit },
      files: files.map((file) => ({ name: file.name, bytes: file.bytes.byteLength, sha256: file.sha256 })),
    },
  };
}
