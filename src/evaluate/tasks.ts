/**
 * Task accuracy by log-likelihood, as lm-evaluation-harness (0.4.13) defines it: multiple choice, and the last
 * word of a text.
 */
import { InputError, throwIfAborted, UsageError } from "../errors.js";
import type { OnProgress } from "../progress.js";
import { eventLoopTurn } from "../runtime/event-loop.js";
import type { LanguageModel } from "../runtime/model.js";
import {
  type ContinuationScore,
  type ContinuationTokenizer,
  type EncodedContinuation,
  encodeContinuation,
  scoreContinuations,
} from "./continuation.js";
import type { EvaluationJournal } from "./journal.js";
import { addValue, mean, noMoments, standardError } from "./moments.js";
import { byteLength } from "./pages.js";
import type { Question, Task } from "./task-file.js";

/** What is needed of a model: any `LanguageModel` has it. */
export interface TaskModel extends Pick<LanguageModel, "config" | "contextLength" | "createSession"> {
  readonly tokenizer: ContinuationTokenizer;
}

export interface EvaluateTasksOptions {
  readonly model: TaskModel;
  /** With names of their own. */
  readonly tasks: readonly Task[];
  /** Questions of each task, from its start. Default: all. */
  readonly limit?: number | undefined;
  /**
   * Begin every context with BOS where the tokenizer adds it, as the harness's `hf` model does and its
   * `local-completions` does not. Default false.
   */
  readonly bos?: boolean | undefined;
  readonly journal?: EvaluationJournal | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** Standard errors are of the mean, with the sample's deviation (n - 1); null for one question. */
export interface TaskResult {
  /** Share of questions whose right choice has the largest log-likelihood; of last words that greedy decoding gives. */
  readonly acc: number;
  readonly stderr: number | null;
  readonly n: number;
  /** The same of log-likelihoods divided by the choice's length in characters (the harness's acc_norm). */
  readonly accNorm?: number;
  readonly accNormStderr?: number | null;
  /** And in UTF-8 bytes (acc_bytes): another figure only where choices are not ASCII. */
  readonly accBytes?: number;
  readonly accBytesStderr?: number | null;
  /** Of last words: exp of the mean negative log-likelihood of a word; its standard error to first order. */
  readonly perplexity?: number;
  readonly perplexityStderr?: number | null;
}

/**
 * Scores tasks; a question's choices cost one prefill. The longest context and continuation has
 * contextLength - 1 tokens: as with the harness's `local-completions` and max_length = contextLength.
 * UsageError for a limit below 1 or two tasks of one name; InputError naming a question that does not fit.
 */
export async function evaluateTasks(options: EvaluateTasksOptions): Promise<Record<string, TaskResult>> {
  const { tasks, limit = Number.POSITIVE_INFINITY } = options;
  if (limit !== Number.POSITIVE_INFINITY && (!Number.isSafeInteger(limit) || limit < 1))
    throw new UsageError(`the limit must be a whole number of at least 1, not ${limit}`);
  const names = new Set(tasks.map(({ name }) => name));
  if (names.size < tasks.length)
    throw new UsageError("two tasks have the same name: give files of different names");
  // Everything is encoded before the first question is scored: what does not fit is found in seconds.
  const encoded: EncodedQuestion[][] = [];
  for (const task of tasks) encoded.push(await encodeTask(task, limit, options));
  const results: [string, TaskResult][] = [];
  for (const [i, task] of tasks.entries())
    results.push([task.name, await scoreTask(task, encoded[i], options)]);
  return Object.fromEntries(results);
}

interface EncodedQuestion {
  readonly question: Question;
  readonly continuations: readonly EncodedContinuation[];
}

async function encodeTask(
  task: Task,
  count: number,
  { model, bos = false, signal }: EvaluateTasksOptions,
): Promise<EncodedQuestion[]> {
  const limit = model.contextLength - 1;
  const { vocabularySize } = model.config;
  const encoded: EncodedQuestion[] = [];
  for (const [i, question] of task.questions.slice(0, count).entries()) {
    // Encoding is synchronous: without a turn of the event loop no interrupt would arrive.
    if (i % 64 === 0) await eventLoopTurn();
    throwIfAborted(signal);
    const { where } = question;
    const continuations = question.continuations.map((continuation) =>
      encodeContinuation(model.tokenizer, continuation, { limit, bos, where }),
    );
    if (continuations.some(({ ids }) => ids.some((id) => id >= vocabularySize)))
      throw new InputError(`${where}: a token is not in the model's vocabulary of ${vocabularySize}`);
    encoded.push({ question, continuations });
  }
  return encoded;
}

async function scoreTask(
  { name, kind }: Task,
  encoded: readonly EncodedQuestion[],
  { model, journal, signal, onProgress }: EvaluateTasksOptions,
): Promise<TaskResult> {
  const longest = encoded.reduce(
    (most, { continuations }) => Math.max(most, ...continuations.map(({ ids }) => ids.length)),
    1,
  );
  const total = encoded.length;
  const answers: ContinuationScore[][] = [];
  const session = model.createSession(longest);
  try {
    for (const [i, { continuations }] of encoded.entries()) {
      throwIfAborted(signal);
      onProgress?.({ stage: name, done: i, total, detail: `question ${i + 1} of ${total}` });
      const key = `${name} ${i}`;
      let scores = journal?.get(key) as ContinuationScore[] | undefined;
      if (scores === undefined) {
        await eventLoopTurn();
        scores = await scoreContinuations(session, model.config.vocabularySize, continuations);
        await journal?.put(key, scores);
      }
      answers.push(scores);
    }
  } finally {
    session.free();
  }
  onProgress?.({ stage: name, done: total, total });
  const questions = encoded.map(({ question }) => question);
  return kind === "lastWord" ? summariseLastWords(answers) : summariseChoices(questions, answers);
}

function summariseLastWords(answers: readonly (readonly ContinuationScore[])[]): TaskResult {
  const nats = noMoments();
  for (const [{ logLikelihood }] of answers) addValue(nats, -logLikelihood);
  const perplexity = Math.exp(mean(nats));
  const stderr = standardError(nats);
  const accuracy = share(answers.map(([{ greedy }]) => greedy));
  return {
    acc: accuracy.share,
    stderr: accuracy.stderr,
    n: answers.length,
    perplexity,
    perplexityStderr: stderr === null ? null : perplexity * stderr,
  };
}

function summariseChoices(
  questions: readonly Question[],
  answers: readonly (readonly ContinuationScore[])[],
): TaskResult {
  const rightBy = (length: (choice: string) => number) =>
    share(
      questions.map(({ choices, gold }, i) => {
        const values = answers[i].map(({ logLikelihood }, c) =>
          choices === null ? logLikelihood : logLikelihood / length(choices[c]),
        );
        return values.indexOf(Math.max(...values)) === gold;
      }),
    );
  const plain = rightBy(() => 1);
  const result = { acc: plain.share, stderr: plain.stderr, n: questions.length };
  if (questions.some(({ choices }) => choices === null)) return result;
  // Python's len(str): code points.
  const characters = rightBy((choice) => [...choice].length);
  const bytes = rightBy(byteLength);
  return {
    ...result,
    accNorm: characters.share,
    accNormStderr: characters.stderr,
    accBytes: bytes.share,
    accBytesStderr: bytes.stderr,
  };
}

function share(right: readonly boolean[]): { share: number; stderr: number | null } {
  const moments = noMoments();
  for (const is of right) addValue(moments, Number(is));
  return { share: mean(moments), stderr: standardError(moments) };
}
