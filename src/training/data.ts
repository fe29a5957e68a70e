/**
 * Training data: files tokenised and packed into examples of at most `context` tokens, and divided into what
 * is trained on and what is held out (Node only). What comes out depends on the files, the tokenizer and the
 * options alone.
 */
import { createHash } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { InputError, throwIfAborted, UsageError } from "../errors.js";
import { Random } from "../random.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { readDocuments, type TrainingDocument } from "./documents.js";

export interface TrainingExample {
  /** 2 ... context token ids. */
  readonly ids: Int32Array;
  /** For each token, 1 where its prediction from those before it is learned, else 0. The first is never. */
  readonly scored: Uint8Array;
}

/**
 * `windows`: all documents joined and cut every `context` tokens, the rest dropped; where one ends and the
 * next begins stand the tokenizer's end and begin tokens. A plain text file is one document, its blank lines
 * kept. For distillation and for learning text.
 *
 * `examples`: each document a row of its own, cut after `context` tokens. A plain text file has a document
 * between every two blank lines. For instructions and conversations.
 *
 * `mixed`: instructions and conversations as `examples`, text as `windows`.
 */
export type Packing = "windows" | "examples" | "mixed";

export interface TrainingDataOptions {
  readonly files: readonly string[];
  readonly packing: Packing;
  /** Tokens of a window, and at most of an example. */
  readonly context: number;
  /** Of the model: an id outside it is an InputError. */
  readonly vocabularySize: number;
  /** Chooses what is held out. 0 ... 2^32 - 1. */
  readonly seed: number;
  /** Below 1 the share of the examples to hold out (at least one example unless 0), else their number. Default 0.05. */
  readonly heldOut?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface TrainingSet {
  /** In the order of the files. No example is in both, and none here has the tokens of one held out. */
  readonly training: readonly TrainingExample[];
  readonly heldOut: readonly TrainingExample[];
  /** Examples not trained on because they are copies of held-out ones. */
  readonly copies: number;
  /** Documents and rows dropped because they have no token to learn: blank, or the prompt fills the context. */
  readonly leftOut: number;
  /** SHA-256, hex, of all tokens and what is scored: a resumed run must find the same. */
  readonly fingerprint: string;
}

/**
 * Reads, tokenises, packs and divides. UsageError for options out of range; InputError, one line naming file
 * and line or entry, for files that cannot be used, that do not fill one window, that leave nothing to learn
 * or nothing beside what is held out, and for a tokenizer that is not the model's.
 */
export async function readTrainingSet(
  tokenizer: Tokenizer,
  options: TrainingDataOptions,
): Promise<TrainingSet> {
  checkOptions(options);
  const { files, packing, context, signal } = options;
  const rows: TrainingExample[] = [];
  const texts: TrainingExample[] = [];
  let leftOut = 0;
  for (const file of files) {
    const separate = packing === "examples";
    const documents = await readDocuments(file, tokenizer, { blankLinesSeparate: separate });
    const before = rows.length + texts.length;
    for (const [i, document] of documents.entries()) {
      // Tokenising is synchronous: without a turn of the event loop no interrupt would arrive.
      if (i % 64 === 0) await setImmediate();
      throwIfAborted(signal);
      const row = document.learned.length > 0 ? tokenise(document, tokenizer, options.vocabularySize) : null;
      const joined = packing === "windows" || (packing === "mixed" && !document.answers);
      if (row) (joined ? texts : rows).push(row);
      else leftOut++;
    }
    if (rows.length + texts.length === before)
      throw new InputError(`${file}: nothing is left to learn after tokenisation: give a file with text`);
  }
  const windows = texts.length > 0 ? cutWindows(texts, context, files, tokenizer) : [];
  const packed = [...cutRows(rows, context), ...windows];
  const examples = packed.filter(({ scored }) => scored.includes(1));
  leftOut += packed.length - examples.length;
  if (examples.length === 0)
    throw new InputError(
      `${files.join(", ")}: no example has a token to learn within ${context} tokens: give a larger context`,
    );
  return { ...divide(examples, options), leftOut, fingerprint: hashExamples(examples) };
}

/**
 * What each position is to predict: the next token where that is scored, else -1; -1 at the last position.
 * As long as the example.
 */
export function nextTokenTargets({ ids, scored }: TrainingExample): Int32Array {
  return ids.map((_, i) => (scored[i + 1] === 1 ? ids[i + 1] : -1));
}

function checkOptions({ files, packing, context, seed, heldOut = 0.05 }: TrainingDataOptions): void {
  if (files.length === 0) throw new UsageError("no training files are given");
  if (packing !== "windows" && packing !== "examples" && packing !== "mixed")
    throw new UsageError(`packing must be windows, examples or mixed, not ${packing}`);
  if (!Number.isInteger(context) || context < 2 || context > 2 ** 20)
    throw new UsageError(`the training context must be a whole number from 2 to ${2 ** 20}, not ${context}`);
  if (!Number.isInteger(seed) || seed < 0 || seed > 2 ** 32 - 1)
    throw new UsageError(`seed must be a whole number from 0 to ${2 ** 32 - 1}, not ${seed}`);
  if (!(heldOut >= 0) || (heldOut >= 1 && !Number.isSafeInteger(heldOut)))
    throw new UsageError(`held-out must be a share below 1 or a whole number, not ${heldOut}`);
}

/** Null when the document has no tokens. */
function tokenise(
  document: TrainingDocument,
  tokenizer: Tokenizer,
  vocabularySize: number,
): TrainingExample | null {
  const { text, learned, framed, where } = document;
  const encode = (part: string) => tokenizer.encode(part, { addSpecialTokens: false });
  const body = encode(text);
  if (body.length === 0) return null;
  const begin = !framed && tokenizer.addsBos && tokenizer.bosTokenId !== null ? [tokenizer.bosTokenId] : [];
  const end = !framed && tokenizer.eosTokenId !== null ? [tokenizer.eosTokenId] : [];
  const ids = [...begin, ...body, ...end];
  // Written so that what a tokenizer without a token for unknown text gives, undefined, is refused too.
  for (const id of ids)
    if (!(id >= 0 && id < vocabularySize))
      throw new InputError(
        `${where}: token id ${id} is not in the model's vocabulary of ${vocabularySize}: the tokenizer is another model's`,
      );
  // A token over the edge of two parts belongs to the later one, since the earlier alone would not make it.
  const tokensBefore = (at: number): number => {
    if (at === 0 || at === text.length) return at === 0 ? 0 : body.length;
    const part = encode(text.slice(0, at));
    let shared = 0;
    while (shared < part.length && part[shared] === body[shared]) shared++;
    return shared;
  };
  const scored = new Uint8Array(ids.length);
  for (const [from, to] of learned)
    scored.fill(1, begin.length + tokensBefore(from), begin.length + tokensBefore(to));
  // The end is learned as well: a model that is not shown it never stops.
  if (end.length > 0) scored[ids.length - 1] = 1;
  return { ids: Int32Array.from(ids), scored };
}

function cutRows(rows: readonly TrainingExample[], context: number): TrainingExample[] {
  return rows.map(({ ids, scored }) => unscoreFirst(ids.subarray(0, context), scored.subarray(0, context)));
}

function cutWindows(
  rows: readonly TrainingExample[],
  context: number,
  files: readonly string[],
  { bosTokenId, eosTokenId, addsBos }: Tokenizer,
): TrainingExample[] {
  // One token that both ends and begins texts (GPT-2's <|endoftext|>) stands once between two of them.
  const skip = addsBos && bosTokenId === eosTokenId ? 1 : 0;
  const from = (i: number) => (i > 0 && rows[i].ids[0] === rows[i - 1].ids.at(-1) ? skip : 0);
  const total = rows.reduce((sum, { ids }, i) => sum + ids.length - from(i), 0);
  if (total < context)
    throw new InputError(
      `${files.join(", ")}: ${total} tokens do not fill one window of ${context}: give more text or a smaller context`,
    );
  const ids = new Int32Array(total);
  const scored = new Uint8Array(total);
  let at = 0;
  for (const [i, row] of rows.entries()) {
    ids.set(row.ids.subarray(from(i)), at);
    scored.set(row.scored.subarray(from(i)), at);
    at += row.ids.length - from(i);
  }
  return Array.from({ length: Math.floor(total / context) }, (_, i) =>
    unscoreFirst(
      ids.subarray(i * context, (i + 1) * context),
      scored.subarray(i * context, (i + 1) * context),
    ),
  );
}

/** Nothing predicts the first token of a row. */
function unscoreFirst(ids: Int32Array, scored: Uint8Array): TrainingExample {
  scored[0] = 0;
  return { ids, scored };
}

/** Windows of text that is tokens already as a set: all of each is learned. */
export function windowSet(
  windows: readonly Int32Array[],
  options: Pick<TrainingDataOptions, "heldOut" | "seed">,
): TrainingSet {
  const examples = windows.map((ids) => unscoreFirst(ids, new Uint8Array(ids.length).fill(1)));
  return { ...divide(examples, options), leftOut: 0, fingerprint: hashExamples(examples) };
}

function divide(
  examples: readonly TrainingExample[],
  { heldOut: wanted = 0.05, seed }: Pick<TrainingDataOptions, "heldOut" | "seed">,
): Omit<TrainingSet, "leftOut" | "fingerprint"> {
  const share = wanted === 0 ? 0 : Math.max(1, Math.round(wanted * examples.length));
  const count = wanted < 1 ? share : wanted;
  const order = examples.map((_, i) => i);
  new Random(seed).shuffle(order);
  const chosen = new Set(order.slice(0, count));
  const heldOut = examples.filter((_, i) => chosen.has(i));
  // Collections repeat themselves: a copy of what is held out would make its loss a measure of memory.
  const contents = new Set(heldOut.map(({ ids }) => hashOf(ids)));
  const training = examples.filter((example, i) => !chosen.has(i) && !contents.has(hashOf(example.ids)));
  if (training.length === 0)
    throw new InputError(
      `the files make ${examples.length} examples, and holding out ${count} leaves none to train on: give more text or hold out fewer`,
    );
  return { training, heldOut, copies: examples.length - count - training.length };
}

function hashOf(values: Int32Array): string {
  return createHash("sha256").update(bytesOf(values)).digest("hex");
}

function hashExamples(examples: readonly TrainingExample[]): string {
  const hash = createHash("sha256");
  for (const { ids, scored } of examples) hash.update(`${ids.length} `).update(bytesOf(ids)).update(scored);
  return hash.digest("hex");
}

function bytesOf(values: Int32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}
