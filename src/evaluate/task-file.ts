/**
 * Task files: a question a line, as `.jsonl` or in a `.json` array (Node only). By its fields a line is
 *
 * - `{context, choices, gold}`: multiple choice, the choices continue one context;
 * - `{contexts, continuation, gold}`: multiple choice, one continuation follows several contexts (winogrande);
 * - `{context, target}`: the last word of a text (LAMBADA).
 *
 * Between context and continuation stands a space, lm-evaluation-harness's target_delimiter.
 */
import { basename, extname } from "node:path";
import { isObject, quote } from "../checkpoint/json.js";
import { InputError } from "../errors.js";
import { readTextFile, type TextFileEntry } from "../text/text-file.js";

export interface Continuation {
  readonly context: string;
  readonly continuation: string;
}

export interface Question {
  /** For messages: file and line. */
  readonly where: string;
  /** What is scored: a continuation for each choice, or the one last word. */
  readonly continuations: readonly Continuation[];
  /** Index of the right choice; 0 for a last word. */
  readonly gold: number;
  /** The choices without delimiter, where likelihoods are divided by their lengths. */
  readonly choices: readonly string[] | null;
}

export interface Task {
  /** The file's name without its extension. */
  readonly name: string;
  readonly kind: "choice" | "contexts" | "lastWord";
  readonly questions: readonly Question[];
}

const DELIMITER = " ";
/** No benchmark has more than some ten. */
const MAX_CHOICES = 256;

/** InputError naming file and line when a question has none of the forms, or another than the first. */
export async function readTask(path: string): Promise<Task> {
  const file = await readTextFile(path);
  if (file.kind === "plain")
    throw new InputError(`${path} is no task file: give a .jsonl file with a question a line`);
  const kind = kindOf(file.entries[0]);
  const questions = file.entries.map((entry) => {
    const found = kindOf(entry);
    if (found !== kind)
      throw new InputError(`${entry.where}: has ${FORMS[found]}, where the file's first has ${FORMS[kind]}`);
    return READERS[kind](entry.value as Record<string, unknown>, entry.where);
  });
  return { name: basename(path, extname(path)), kind, questions };
}

const FORMS = {
  choice: '"context", "choices" and "gold"',
  contexts: '"contexts", "continuation" and "gold"',
  lastWord: '"context" and "target"',
} as const;

function kindOf({ value, where }: TextFileEntry): Task["kind"] {
  if (isObject(value)) {
    if ("contexts" in value) return "contexts";
    if ("choices" in value) return "choice";
    if ("target" in value) return "lastWord";
  }
  throw new InputError(`${where}: expected an object with ${Object.values(FORMS).join(", or ")}`);
}

const READERS: Record<Task["kind"], (entry: Record<string, unknown>, where: string) => Question> = {
  choice(entry, where) {
    const context = text(entry, "context", where);
    const choices = list(entry, "choices", where);
    const continuations = choices.map((choice) => ({ context, continuation: DELIMITER + choice }));
    return { where, continuations, gold: index(entry, choices.length, where), choices };
  },
  contexts(entry, where) {
    const contexts = list(entry, "contexts", where);
    const rest = words(entry, "continuation", where);
    const continuation = rest.startsWith(DELIMITER) ? rest : DELIMITER + rest;
    const continuations = contexts.map((context) => ({ context, continuation }));
    return { where, continuations, gold: index(entry, contexts.length, where), choices: null };
  },
  lastWord(entry, where) {
    const context = text(entry, "context", where);
    const continuation = DELIMITER + words(entry, "target", where);
    return { where, continuations: [{ context, continuation }], gold: 0, choices: null };
  },
};

function text(entry: Record<string, unknown>, field: string, where: string): string {
  const value = entry[field];
  if (typeof value === "string") return value;
  throw new InputError(
    `${where}: "${field}" is ${field in entry ? "not a string" : "missing"}: correct the entry`,
  );
}

function words(entry: Record<string, unknown>, field: string, where: string): string {
  const value = text(entry, field, where);
  if (value.trim() === "") throw new InputError(`${where}: "${field}" is empty: correct the entry`);
  return value;
}

function list(entry: Record<string, unknown>, field: string, where: string): string[] {
  const value = entry[field];
  if (!Array.isArray(value) || value.length < 2 || value.length > MAX_CHOICES)
    throw new InputError(`${where}: "${field}" is not a list of 2 to ${MAX_CHOICES} strings`);
  return value.map((item: unknown, i) => {
    if (typeof item !== "string" || item === "")
      throw new InputError(`${where}: "${field}" has no text at position ${i}: correct the entry`);
    return item;
  });
}

function index(entry: Record<string, unknown>, count: number, where: string): number {
  const { gold } = entry;
  if (Number.isInteger(gold) && (gold as number) >= 0 && (gold as number) < count) return gold as number;
  const found = "gold" in entry ? quote(JSON.stringify(gold)) : "missing";
  throw new InputError(`${where}: "gold" is ${found}, expected a whole number from 0 to ${count - 1}`);
}
