/**
 * Measurements of models as files of JSON: what `eval --out` and `bench --json` wrote. They come from outside;
 * what a report uses of them is checked here, field by field.
 */
import { FileSource } from "../checkpoint/file-source.js";
import { parseJsonObject } from "../checkpoint/json.js";
import { JsonField } from "../container/json.js";
import { CorruptFileError, InputError } from "../errors.js";
import { PROTOCOLS, type Protocol } from "../evaluate/protocol.js";

/** A model by the hash of its manifest, or of its weights where it is no PocketLLM folder. */
export interface MeasuredModel {
  readonly kind: "manifest" | "weights";
  readonly sha256: string;
}

/** Perplexity of a model on a text, and its distance from a reference. */
export interface TextResult {
  readonly protocol: Protocol;
  readonly text: { readonly name: string; readonly sha256: string };
  /** Tokens of a window. */
  readonly context: number;
  readonly windows: number;
  readonly tokensScored: number;
  readonly perplexity: number;
  readonly perplexityStderr: number | null;
  readonly reference: ReferenceResult | null;
}

export interface ReferenceResult {
  /** SHA-256 of its manifest or weights. */
  readonly sha256: string;
  readonly perplexity: number;
  /** KL(reference || model), nats. */
  readonly divergence: {
    readonly mean: number;
    readonly stderr: number | null;
    readonly median: number;
    readonly p99: number;
  };
  /** Share of positions, 0 … 1. */
  readonly sameTop: number;
}

/** Shares of questions, 0 … 1, with standard errors; null for a single question. */
export interface TaskScore {
  readonly name: string;
  /** SHA-256 of the task's file, where the result says it: scores of different questions are not compared. */
  readonly sha256: string | null;
  readonly n: number;
  readonly acc: number;
  readonly stderr: number | null;
  readonly accNorm: number | null;
  readonly accNormStderr: number | null;
}

export interface EvaluationResult {
  /** Name of the file, or what it came from. */
  readonly from: string;
  readonly model: MeasuredModel;
  /** SHA-256 of the adapter that was used on top of the model. */
  readonly adapter: string | null;
  readonly kvCache: string;
  readonly text: TextResult | null;
  readonly tasks: readonly TaskScore[];
}

/** Medians: tokens a second, seconds, bytes. */
export interface SpeedResult {
  readonly from: string;
  /** The path that was measured. */
  readonly model: string;
  readonly prefill: number;
  readonly decode: number;
  readonly timeToFirstToken: number;
  readonly residentBytes: number;
  readonly loadSeconds: number;
  readonly machine: string | null;
}

/** A result has a number for each window: 16 MiB are those of a million windows. */
const MAX_BYTES = 16 * 2 ** 20;
const MAX_TASKS = 1000;
const MAX_MODELS = 100;
const HASH = /^[0-9a-f]{64}$/;

/** InputError or CorruptFileError, one line, for what is no result of `eval`. */
export async function readEvaluation(path: string): Promise<EvaluationResult> {
  const root = await readResult(path);
  if (!root.has("perplexity") && !root.has("tasks"))
    throw new InputError(`${path} is not a result of eval: make one with eval MODEL --out FILE`);
  return parseEvaluation(root, path);
}

/** The same of a result that was just measured. */
export function parseEvaluation(root: JsonField, from: string): EvaluationResult {
  if (!root.has("model"))
    throw new InputError(`${from} does not say which model it measured: run eval again, with --out`);
  const options = root.has("options") ? root.get("options") : null;
  return {
    from,
    model: parseModel(root.get("model")),
    adapter: root.has("adapter") ? root.get("adapter").get("sha256").string(HASH) : null,
    kvCache: options?.has("kvCache") ? options.get("kvCache").string() : "f32",
    text: root.has("perplexity") ? parseText(root) : null,
    tasks: root.has("tasks") ? parseTasks(root) : [],
  };
}

/** Of every model that was measured. InputError or CorruptFileError, one line, for what is no result of `bench`. */
export async function readSpeeds(path: string): Promise<SpeedResult[]> {
  const root = await readResult(path);
  if (!root.has("prefill") || !root.has("decode"))
    throw new InputError(`${path} is not a result of bench: make one with bench MODEL --json > FILE`);
  const machine = root.has("machine") ? describeMachine(root.get("machine")) : null;
  const others = root.has("against") ? root.get("against").items(MAX_MODELS) : [];
  return [root, ...others].map((field) => {
    const figure = (key: string) => finite(field.get(key), 0);
    return {
      from: path,
      model: field.get("model").string(),
      prefill: figure("prefill"),
      decode: figure("decode"),
      timeToFirstToken: figure("timeToFirstToken"),
      residentBytes: figure("residentBytes"),
      loadSeconds: figure("loadSeconds"),
      machine,
    };
  });
}

async function readResult(path: string): Promise<JsonField> {
  const file = await FileSource.open(path);
  try {
    if (file.size > MAX_BYTES)
      throw new CorruptFileError(
        `${path}: has ${file.size} bytes, more than the limit of ${MAX_BYTES} for a result`,
      );
    return new JsonField(parseJsonObject(await file.read(0, file.size), path), `${path}:`);
  } finally {
    await file.close();
  }
}

function parseModel(field: JsonField): MeasuredModel {
  const manifest = field.has("manifestSha256");
  return {
    kind: manifest ? "manifest" : "weights",
    sha256: field.get(manifest ? "manifestSha256" : "sha256").string(HASH),
  };
}

function parseText(root: JsonField): TextResult {
  const count = (key: string) => root.get(key).integer(1, Number.MAX_SAFE_INTEGER);
  const text = root.get("text");
  return {
    protocol: root.get("protocol").oneOf(PROTOCOLS),
    text: { name: text.get("name").string(), sha256: text.get("sha256").string(HASH) },
    context: count("context"),
    windows: count("windows"),
    tokensScored: count("tokensScored"),
    perplexity: finite(root.get("perplexity"), 1),
    perplexityStderr: error(root, "perplexityStderr"),
    reference: root.has("reference") ? parseReference(root) : null,
  };
}

function parseReference(root: JsonField): ReferenceResult {
  const divergence = root.get("divergence");
  return {
    sha256: parseModel(root.get("reference")).sha256,
    perplexity: finite(root.get("referencePerplexity"), 1),
    divergence: {
      mean: finite(divergence.get("mean"), 0),
      stderr: error(divergence, "stderr"),
      median: finite(divergence.get("median"), 0),
      p99: finite(divergence.get("p99"), 0),
    },
    sameTop: share(root.get("sameTop")),
  };
}

function parseTasks(root: JsonField): TaskScore[] {
  const files = root.has("taskFiles") ? root.get("taskFiles").items(MAX_TASKS) : [];
  const hashes = new Map(
    files.map((file) => [
      file
        .get("name")
        .string()
        .replace(/\.jsonl$/, ""),
      file.get("sha256").string(HASH),
    ]),
  );
  return root
    .get("tasks")
    .entries(MAX_TASKS)
    .map(([name, field]) => ({
      name,
      sha256: hashes.get(name) ?? null,
      n: field.get("n").integer(1, Number.MAX_SAFE_INTEGER),
      acc: share(field.get("acc")),
      stderr: error(field, "stderr"),
      accNorm: field.has("accNorm") ? share(field.get("accNorm")) : null,
      accNormStderr: error(field, "accNormStderr"),
    }));
}

/** A line from whatever simple values there are. */
function describeMachine(field: JsonField): string {
  return field
    .entries(100)
    .flatMap(([name, { value }]) =>
      typeof value === "string" || typeof value === "number" ? [`${name} ${value}`] : [],
    )
    .join(", ");
}

function finite(field: JsonField, low: number, high = Number.MAX_VALUE): number {
  const { value } = field;
  if (typeof value !== "number" || !(value >= low && value <= high))
    return field.fail(`is not a number from ${low}${high < Number.MAX_VALUE ? ` to ${high}` : ""}`);
  return value;
}

function share(field: JsonField): number {
  return finite(field, 0, 1);
}

/** A standard error; null where there is none. */
function error(parent: JsonField, key: string): number | null {
  if (!parent.has(key) || parent.get(key).value === null) return null;
  return finite(parent.get(key), 0);
}
