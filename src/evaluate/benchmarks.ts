/**
 * Benchmarks in the form in which their authors' data sets lie on the hub, and the questions that
 * lm-evaluation-harness (0.4.13, lm_eval/tasks/) makes of their rows, without examples.
 */
import { CorruptFileError, UsageError } from "../errors.js";
import type { ParquetRow } from "./parquet.js";
import { capitalize, lstrip, strip } from "./python-text.js";
import type { Continuation, Question, Task } from "./task-file.js";

export interface Benchmark {
  /** The harness's name of the task. */
  readonly name: string;
  /** Data sets of the hub that have it in this form; the first is the harness's. */
  readonly datasets: readonly string[];
  /** null: the data set has one config. */
  readonly config: string | null;
  readonly split: string;
  /** Top-level columns that are read. */
  readonly columns: readonly string[];
  readonly kind: Task["kind"];
  question(row: Row): Question;
}

/** Between context and continuation: the harness's target_delimiter. */
const DELIMITER = " ";
/** More than any benchmark's passage: what is longer is not a question. */
const MAX_LENGTH = 2 ** 20;
const MAX_CHOICES = 256;

/** A row of a parquet file; every value is checked when it is asked for. CorruptFileError naming row and column. */
export class Row {
  readonly where: string;
  readonly #row: ParquetRow;

  constructor(row: ParquetRow, where: string) {
    this.#row = row;
    this.where = where;
  }

  /** `path`: names divided by dots. */
  text(path: string): string {
    const value = this.#at(path);
    if (typeof value !== "string" || value.length > MAX_LENGTH) throw this.wrong(path, "a text");
    return value;
  }

  texts(path: string, count?: number): string[] {
    const values = this.#at(path);
    const length = Array.isArray(values) ? values.length : 0;
    const fits = count === undefined ? length >= 2 && length <= MAX_CHOICES : length === count;
    const are = (value: unknown) => typeof value === "string" && value.length <= MAX_LENGTH;
    if (!Array.isArray(values) || !fits || !values.every(are))
      throw this.wrong(path, `a list of ${count ?? `2 to ${MAX_CHOICES}`} texts`);
    return values as string[];
  }

  /** A whole number from 0 to `count` - 1, also in digits as texts have it. */
  index(path: string, count: number): number {
    const value = this.#at(path);
    const digits = typeof value === "string" && /^\d{1,3}$/.test(strip(value));
    const n = typeof value === "bigint" || digits ? Number(value) : value;
    if (typeof n !== "number" || !Number.isInteger(n) || n < 0 || n >= count)
      throw this.wrong(path, `a number from 0 to ${count - 1}`);
    return n;
  }

  flag(path: string): boolean {
    const value = this.#at(path);
    if (typeof value !== "boolean") throw this.wrong(path, "true or false");
    return value;
  }

  wrong(path: string, expected: string): CorruptFileError {
    return new CorruptFileError(`${this.where}: ${path} is not ${expected}: this is not the data set's form`);
  }

  #at(path: string): unknown {
    let value: unknown = this.#row;
    for (const name of path.split("."))
      value = typeof value === "object" && value !== null ? (value as ParquetRow)[name] : undefined;
    return value;
  }
}

function choose(row: Row, context: string, choices: readonly string[], gold: number): Question {
  const continuations = choices.map((choice) => ({ context, continuation: DELIMITER + choice }));
  return { where: row.where, continuations, gold, choices };
}

function labelled(row: Row, context: string, key: string): Question {
  const choices = row.texts("choices.text");
  const gold = row.texts("choices.label", choices.length).indexOf(key);
  if (gold < 0) throw row.wrong("answerKey", "one of choices.label");
  return choose(row, context, choices, gold);
}

function arc(name: string, config: string): Benchmark {
  return {
    ...{ name, config, datasets: ["allenai/ai2_arc"], split: "test", kind: "choice" },
    columns: ["question", "choices", "answerKey"],
    question: (row) => labelled(row, `Question: ${row.text("question")}\nAnswer:`, row.text("answerKey")),
  };
}

function boolq(dataset: string, config: string, column: string, gold: (row: Row) => number): Benchmark {
  return {
    ...{ name: "boolq", datasets: [dataset], config, split: "validation", kind: "choice" },
    columns: ["passage", "question", column],
    question(row) {
      const context = `${row.text("passage")}\nQuestion: ${row.text("question")}?\nAnswer:`;
      return choose(row, context, ["no", "yes"], gold(row));
    },
  };
}

const LETTERS = ["A", "B", "C", "D"];

/** `config`: a subject, or "all". */
function mmlu(config: string): Benchmark {
  const all = config === "all";
  return {
    ...{
      name: all ? "mmlu" : `mmlu_${config}`,
      datasets: ["cais/mmlu"],
      config,
      split: "test",
      kind: "choice",
    },
    columns: ["question", "choices", "answer", ...(all ? ["subject"] : [])],
    question(row) {
      const subject = (all ? row.text("subject") : config).replaceAll("_", " ");
      const choices = row.texts("choices", LETTERS.length).map((choice, i) => `${LETTERS[i]}. ${choice}\n`);
      const context =
        `The following are multiple choice questions (with answers) about ${subject}.\n\n` +
        `${strip(row.text("question"))}\n${choices.join("")}Answer:`;
      return choose(row, context, LETTERS, row.index("answer", LETTERS.length));
    },
  };
}

const BENCHMARKS: readonly Benchmark[] = [
  arc("arc_easy", "ARC-Easy"),
  arc("arc_challenge", "ARC-Challenge"),
  {
    ...{
      name: "hellaswag",
      datasets: ["Rowan/hellaswag"],
      config: null,
      split: "validation",
      kind: "choice",
    },
    columns: ["activity_label", "ctx_a", "ctx_b", "endings", "label"],
    question(row) {
      const text = `${row.text("ctx_a")} ${capitalize(row.text("ctx_b"))}`;
      const choices = row.texts("endings").map(withoutBrackets);
      const context = withoutBrackets(`${row.text("activity_label")}: ${text}`);
      return choose(row, context, choices, row.index("label", choices.length));
    },
  },
  {
    ...{
      name: "piqa",
      datasets: ["baber/piqa", "ybisk/piqa"],
      config: null,
      split: "validation",
      kind: "choice",
    },
    columns: ["goal", "sol1", "sol2", "label"],
    question: (row) =>
      choose(
        row,
        `Question: ${row.text("goal")}\nAnswer:`,
        [row.text("sol1"), row.text("sol2")],
        row.index("label", 2),
      ),
  },
  {
    ...{ name: "winogrande", datasets: ["allenai/winogrande"], config: "winogrande_xl", split: "validation" },
    kind: "contexts",
    columns: ["sentence", "option1", "option2", "answer"],
    question(row) {
      const sentence = row.text("sentence");
      const blank = sentence.indexOf("_");
      if (blank < 0) throw row.wrong("sentence", "a text with a blank (_)");
      const continuation = DELIMITER + strip(sentence.slice(blank + 1));
      const continuations = ["option1", "option2"].map(
        (option): Continuation => ({ context: sentence.slice(0, blank) + row.text(option), continuation }),
      );
      const gold = ["1", "2"].indexOf(row.text("answer"));
      if (gold < 0) throw row.wrong("answer", '"1" or "2"');
      return { where: row.where, continuations, gold, choices: null };
    },
  },
  boolq("aps/super_glue", "boolq", "label", (row) => row.index("label", 2)),
  // The same questions; only its passages do not begin with the article's title.
  boolq("google/boolq", "default", "answer", (row) => Number(row.flag("answer"))),
  {
    ...{
      name: "openbookqa",
      datasets: ["allenai/openbookqa"],
      config: "main",
      split: "test",
      kind: "choice",
    },
    columns: ["question_stem", "choices", "answerKey"],
    question: (row) => labelled(row, row.text("question_stem"), lstrip(row.text("answerKey"))),
  },
  {
    ...{ name: "lambada_openai", datasets: ["EleutherAI/lambada_openai"], config: "default", split: "test" },
    kind: "lastWord",
    columns: ["text"],
    question(row) {
      const words = row.text("text").split(" ");
      const continuation = DELIMITER + words.pop();
      return {
        where: row.where,
        continuations: [{ context: words.join(" "), continuation }],
        gold: 0,
        choices: null,
      };
    },
  },
  mmlu("all"),
];

/** HellaSwag's marks of headings and its double spaces, as the harness's process_docs takes them out. */
function withoutBrackets(text: string): string {
  return strip(text)
    .replaceAll(" [title]", ". ")
    .replace(/\[[^\n]*?\]/g, "")
    .replaceAll("  ", " ");
}

/** Whether `name` is a task of the harness that is known here, or a data set of such a one. */
export function isBenchmark(name: string): boolean {
  return (
    /^mmlu_[a-z_]+$/.test(name) ||
    BENCHMARKS.some((known) => known.name === name || known.datasets.includes(name))
  );
}

/**
 * The benchmark that a task's name or a data set's with a config means. UsageError when there is none, or several.
 */
export function findBenchmark(name: string, config: string | null): Benchmark {
  const subject =
    /^mmlu_([a-z_]+)$/.exec(name)?.[1] ?? (name === "cais/mmlu" || name === "mmlu" ? config : null);
  if (subject !== null && subject !== "all") return mmlu(subject);
  const named = BENCHMARKS.filter((known) => known.name === name || known.datasets.includes(name));
  if (named.length === 0)
    throw new UsageError(
      `${name}: no such file here, and no benchmark that is known; there are ${[...new Set(BENCHMARKS.map((known) => known.name))].join(", ")}`,
    );
  // A task's name means the harness's data set, the first.
  const candidates = name.includes("/") ? named : named.slice(0, 1);
  const fitting = candidates.filter(
    (known) => config === null || known.config === null || known.config === config,
  );
  const configs = candidates.map((known) => `${name}:${known.config}`).join(" or ");
  if (fitting.length === 0)
    throw new UsageError(`${name}:${config}: is no benchmark that is known; give ${configs}`);
  if (fitting.length > 1) throw new UsageError(`${name}: has several benchmarks: give ${configs}`);
  return { ...fitting[0], config: config ?? fitting[0].config };
}
