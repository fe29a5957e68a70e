/** Names of things on the Hugging Face hub: `org/name[@revision]`, with a file or a data set's config in between. */
import { UsageError } from "../errors.js";

export interface RepositoryId {
  readonly type: "model" | "dataset";
  /** `org/name`. */
  readonly name: string;
  /** A branch, a tag or a commit. */
  readonly revision: string;
}

export interface ModelId extends RepositoryId {
  readonly type: "model";
  /** A `.gguf` file of the repository, which may lie in a folder of it. */
  readonly file: string | null;
}

export interface DatasetId {
  /** `org/name`, or one word: a benchmark. */
  readonly name: string;
  readonly config: string | null;
  /** null: the hub's own conversion to parquet, of the newest state. */
  readonly revision: string | null;
}

/** What the hub allows in names: no empty part, none that begins or ends with a dot or dash. */
const PART = "[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?";
const NAME = `${PART}/${PART}`;
const REVISION = "(?:@(?<revision>[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}))?";
const MODEL = new RegExp(`^(?<name>${NAME})(?:/(?<file>.+\\.gguf))?${REVISION}$`, "i");
const DATASET = new RegExp(
  `^(?<name>${PART}(?:/${PART})?)(?::(?<config>[A-Za-z0-9_][A-Za-z0-9._-]{0,99}))?${REVISION}$`,
);
const COMMIT = /^[0-9a-f]{40}$/;

/** `org/name[@revision]` or `org/name/file.gguf[@revision]`; null when `text` has neither form. */
export function parseModelId(text: string): ModelId | null {
  const groups = MODEL.exec(text)?.groups;
  if (!groups) return null;
  const { name, file = null, revision = "main" } = groups;
  // org/name.gguf is a repository's name only where it has no third part: hub names may end so, and do not.
  if (file === null && /\.(gguf|bin|safetensors)$/i.test(name)) return null;
  return { type: "model", name, file: file === null ? null : checked(file), revision: checked(revision) };
}

/** `org/name[:config][@revision]`, or one word instead of `org/name`; null when `text` has another form. */
export function parseDatasetId(text: string): DatasetId | null {
  const groups = DATASET.exec(text)?.groups;
  if (!groups) return null;
  const { name, config = null, revision = null } = groups;
  return { name, config, revision: revision === null ? null : checked(revision) };
}

export function isCommit(revision: string): boolean {
  return COMMIT.test(revision);
}

/** As its user may write it. */
export function formatId({ name, revision }: RepositoryId): string {
  return revision === "main" ? name : `${name}@${revision}`;
}

/**
 * Whether a path from outside stays below the folder that it is joined to, on any system: no absolute path, no
 * empty or dotted part, no backslash or control character.
 */
export function isInside(path: string): boolean {
  return (
    path.length > 0 &&
    path.length <= 1000 &&
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    !/[\\\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(path) &&
    path.split("/").every((part) => part !== "" && part !== "." && part !== "..")
  );
}

function checked(path: string): string {
  if (!isInside(path)) throw new UsageError(`${JSON.stringify(path)} is no name of a file or revision`);
  return path;
}
