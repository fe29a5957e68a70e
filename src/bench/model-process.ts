/** One of our models as a contestant: the program that `Child` runs. Arguments: JSON of ModelProcessOptions. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { packedRowBytes } from "../compute/kv-format.js";
import { loadModel } from "../runtime/load.js";
import type { LoadedModel } from "../runtime/loaded-model.js";
import type { Session } from "../runtime/model.js";
import { answerParent, timed } from "./child.js";
import { DECODE_FROM, promptIds, type Run, type Task } from "./contestant.js";
import { measureKernels } from "./kernels.js";

export interface ModelProcessOptions {
  readonly model: string;
  readonly threads: number;
  /** Tokens of a prompt; fewer where the context is shorter. */
  readonly promptTokens: number;
  /** Tokens decoded in a run. */
  readonly newTokens: number;
}

export type ModelRequest =
  | { readonly task: Task }
  | { readonly ask: "load" | "firstToken" | "memory" | "kernels" };

export interface LoadFigures {
  /** Reading the model's files and hashing them with SHA-256, the files in the system's cache. */
  readonly readAndHashSeconds: number;
  readonly readAndHashCpuSeconds: number;
  /** `loadModel`, tokenizer included, in a process that has run nothing else. */
  readonly loadSeconds: number;
  readonly loadCpuSeconds: number;
  readonly threads: number;
  readonly contextLength: number;
  readonly promptTokens: number;
}

export interface MemoryFigures {
  /** Resident memory of the process now, and of Node before it loaded anything. */
  readonly residentBytes: number;
  readonly nodeBytes: number;
  /** Bytes that the weights take in memory, and of the weight files. */
  readonly heldBytes: number;
  readonly fileBytes: number;
  readonly cacheBytes: number;
}

const options = JSON.parse(process.argv[2]) as ModelProcessOptions;
const nodeBytes = process.memoryUsage.rss();
let loaded: { model: LoadedModel; session: Session; promptTokens: number; fileBytes: number } | undefined;

answerParent((message) => {
  const request = message as ModelRequest;
  if ("task" in request) return run(request.task);
  switch (request.ask) {
    case "load":
      return load();
    case "firstToken":
      return firstToken();
    case "memory":
      return memory();
    case "kernels":
      return measureKernels(options.model);
  }
});

async function load(): Promise<LoadFigures> {
  const files = await weightFiles(options.model);
  await timed(0, () => hashAll(files.all)); // The first reading brings the files into the system's cache.
  const read = await timed(0, () => hashAll(files.all));
  let model: LoadedModel | undefined;
  const opened = await timed(0, async () => {
    model = await loadModel(options.model, { threads: options.threads, joinVectors: true });
  });
  const { contextLength, threads } = model!;
  const capacity = Math.min(contextLength, Math.max(options.promptTokens, DECODE_FROM + options.newTokens));
  const promptTokens = Math.min(options.promptTokens, capacity);
  const session = model!.createSession(capacity);
  loaded = { model: model!, session, promptTokens, fileBytes: files.weightBytes };
  return {
    readAndHashSeconds: read.seconds,
    readAndHashCpuSeconds: read.cpuSeconds!,
    loadSeconds: opened.seconds,
    loadCpuSeconds: opened.cpuSeconds!,
    threads,
    contextLength,
    promptTokens,
  };
}

/** A model is a file, or a folder with files; weights are all that is no JSON. */
async function weightFiles(path: string): Promise<{ all: string[]; weightBytes: number }> {
  const whole = await stat(path);
  if (!whole.isDirectory()) return { all: [path], weightBytes: whole.size };
  const names = (await readdir(path)).filter((name) => /\.(safetensors|json)$/.test(name)).sort();
  let weightBytes = 0;
  for (const name of names)
    if (name.endsWith(".safetensors")) weightBytes += (await stat(join(path, name))).size;
  return { all: names.map((name) => join(path, name)), weightBytes };
}

async function hashAll(files: readonly string[]): Promise<void> {
  for (const file of files) {
    const hash = createHash("sha256");
    for await (const piece of createReadStream(file, { highWaterMark: 2 ** 20 })) hash.update(piece);
    hash.digest();
  }
}

function ready() {
  if (!loaded) throw new Error("the model was not loaded");
  return loaded;
}

async function run(task: Task): Promise<Run> {
  const { session, model, promptTokens } = ready();
  session.truncate(0);
  if (task === "prefill")
    return await timed(promptTokens, () =>
      session.forward(promptIds(promptTokens, model.config.vocabularySize)),
    );
  const from = Math.min(DECODE_FROM, session.capacity - 1);
  const count = Math.min(options.newTokens, session.capacity - from);
  let logits = await session.forward(promptIds(from, model.config.vocabularySize));
  return await timed(count, async () => {
    for (let i = 0; i < count; i++) logits = await session.forward(Int32Array.of(argmax(logits)));
  });
}

/** Seconds from a prompt of token ids to the first new token. */
async function firstToken(): Promise<number> {
  const { model, promptTokens } = ready();
  const ids = [...promptIds(promptTokens - 1, model.config.vocabularySize)];
  for await (const event of model.generate(ids, { maxTokens: 1 }))
    if (event.type === "token") return event.seconds;
    else return event.prefillSeconds; // The first token ends the text.
  throw new Error("generation gave nothing");
}

function memory(): MemoryFigures {
  const { model, session, fileBytes } = ready();
  const { layers, kvHeads, headSize } = model.config;
  return {
    residentBytes: process.memoryUsage.rss(),
    nodeBytes,
    heldBytes: model.bytes,
    fileBytes,
    cacheBytes: 2 * layers * session.capacity * kvHeads * packedRowBytes("f16", headSize),
  };
}

function argmax(logits: Float32Array): number {
  let most = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[most]) most = i;
  return most;
}
