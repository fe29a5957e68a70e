/**
 * The perplexity protocols: which tokens a text becomes, how they are cut into sequences that the model sees
 * apart from each other, which of them are scored, and what their negative log-likelihood is divided by.
 */
import { InputError, UsageError } from "../errors.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { byteLength, countWords, readPages } from "./pages.js";

/**
 * `default`: the text whole, windows of `context` tokens without overlap, all but a window's first token scored.
 *
 * `gptq`: the same with windows of 2048 tokens, as GPTQ's scripts cut the joined test split.
 *
 * `llamacpp`: as llama.cpp's perplexity program: the second half of each window scored, that is the tokens
 * after position floor(context / 2); where the tokenizer adds BOS it replaces the first token of every window.
 *
 * `word`: as lm-evaluation-harness's word_perplexity: documents apart, each scored whole in rolling windows.
 */
export const PROTOCOLS = ["default", "gptq", "llamacpp", "word"] as const;
export type Protocol = (typeof PROTOCOLS)[number];

/** What the protocols ask of a tokenizer. */
export type EvaluatedTokenizer = Pick<Tokenizer, "encodeLong" | "addsBos" | "bosTokenId" | "eosTokenId">;

export interface Sequence {
  /** The model sees all but the last token, which is only a target. At most `context` + 1. */
  readonly ids: Int32Array;
  /** Index of the first scored token, at least 1; from there on all are scored. */
  readonly firstScored: number;
}

export interface ProtocolPlan {
  readonly sequences: readonly Sequence[];
  /** Windows, or documents under `word`. */
  readonly windows: number;
  /** Only under `word`: of the documents as they were given. */
  readonly words?: number;
  readonly bytes?: number;
  /** One line for a report: what was done exactly. */
  readonly description: string;
}

const DEFAULT_CONTEXT = 1024;
/** GPTQ's, and what lm-evaluation-harness takes for models that name none. */
const PAPER_CONTEXT = 2048;

/** Tokens of a window. UsageError when gptq is given another than its own; InputError when none is possible. */
export function chooseContext(protocol: Protocol, longest: number, wanted: number | undefined): number {
  if (protocol === "gptq") {
    if (wanted !== undefined && wanted !== PAPER_CONTEXT)
      throw new UsageError(`protocol gptq has windows of ${PAPER_CONTEXT} tokens: leave the context out`);
    if (longest < PAPER_CONTEXT)
      throw new InputError(
        `protocol gptq has windows of ${PAPER_CONTEXT} tokens and the model's context is ${longest}: use another protocol`,
      );
    return PAPER_CONTEXT;
  }
  const chosen = wanted ?? Math.min(protocol === "word" ? PAPER_CONTEXT : DEFAULT_CONTEXT, longest);
  if (chosen > longest)
    throw new InputError(`a context of ${chosen} tokens is longer than the model's: give ${longest} or less`);
  const least = protocol === "llamacpp" ? 3 : 2;
  if (!Number.isSafeInteger(chosen) || chosen < least)
    throw new InputError(
      `a context of ${chosen} tokens scores nothing: give a whole number of at least ${least}`,
    );
  return chosen;
}

export interface PlanOptions {
  readonly tokenizer: EvaluatedTokenizer;
  /** Documents; all protocols but `word` join them with a blank line. */
  readonly documents: readonly string[];
  readonly context: number;
  /** The first windows, or documents under `word`. Default: all. */
  readonly windows?: number | undefined;
}

/** InputError when the text is shorter than one window, or has no words. */
export function planProtocol(protocol: Protocol, options: PlanOptions): ProtocolPlan {
  if (protocol === "word") return planWords(options);
  const { tokenizer, documents, context } = options;
  const bos = tokenizer.addsBos ? tokenizer.bosTokenId : null;
  const windows = cutWindows(textTokens(tokenizer, documents.join("\n\n"), bos), context, options.windows);
  const halves = protocol === "llamacpp";
  const firstScored = halves ? Math.floor(context / 2) + 1 : 1;
  const sequences = windows.map((window) => {
    const ids = window.slice();
    if (halves && bos !== null) ids[0] = bos;
    return { ids, firstScored };
  });
  const scored = halves
    ? `the last ${context - firstScored} tokens of each scored`
    : "all but the first token of each scored";
  const begin = bos === null ? "no BOS" : halves ? "BOS first in each" : "BOS once before the text";
  return {
    sequences,
    windows: windows.length,
    description: `windows of ${context} tokens without overlap over the joined text, ${scored}, ${begin}, last partial window dropped`,
  };
}

/** The whole text's tokens, after `bos` where that is one. */
function textTokens(tokenizer: EvaluatedTokenizer, text: string, bos: number | null): Int32Array {
  const ids = tokenizer.encodeLong(text, { addSpecialTokens: false });
  if (bos === null) return ids;
  const withBos = new Int32Array(ids.length + 1);
  withBos[0] = bos;
  withBos.set(ids, 1);
  return withBos;
}

function cutWindows(ids: Int32Array, context: number, windows = Number.POSITIVE_INFINITY): Int32Array[] {
  const whole = Math.floor(ids.length / context);
  if (whole === 0)
    throw new InputError(
      `the text is too short: ${ids.length} tokens do not fill one window of ${context}; ` +
        "give a longer text or a smaller context",
    );
  return Array.from({ length: Math.min(whole, windows) }, (_, i) =>
    ids.subarray(i * context, (i + 1) * context),
  );
}

function planWords({ tokenizer, documents, context, windows }: PlanOptions): ProtocolPlan {
  const prefix = tokenizer.bosTokenId ?? tokenizer.eosTokenId;
  if (prefix === null)
    throw new InputError(
      "protocol word needs a token before a document, and this tokenizer names neither BOS nor EOS",
    );
  const pages = documents.flatMap(readPages).slice(0, windows);
  const sequences = pages.flatMap(({ scored }) =>
    rollingWindows(tokenizer.encodeLong(scored, { addSpecialTokens: false }), prefix, context),
  );
  if (sequences.length === 0) throw new InputError("the text has no words: give another");
  return {
    sequences,
    windows: pages.length,
    words: pages.reduce((sum, { original }) => sum + countWords(original), 0),
    bytes: pages.reduce((sum, { original }) => sum + byteLength(original), 0),
    description:
      `each document apart, ${tokenizer.bosTokenId === null ? "EOS" : "BOS"} before it, all its tokens scored in ` +
      `rolling windows of at most ${context}, exp of nats a white-space word`,
  };
}

/**
 * lm-evaluation-harness's get_rolling_token_windows with context_len 1 (lm_eval/utils.py): windows that
 * predict `context` tokens each from one token before them; the last one is as long as the others and predicts
 * only what is left.
 */
function rollingWindows(tokens: Int32Array, prefix: number, context: number): Sequence[] {
  if (tokens.length === 0) return [];
  const first = Math.min(context, tokens.length);
  const sequences: Sequence[] = [
    { ids: Int32Array.of(prefix, ...tokens.subarray(0, first)), firstScored: 1 },
  ];
  for (let done = first; done < tokens.length; ) {
    const predicted = Math.min(context, tokens.length - done);
    done += predicted;
    const ids = tokens.slice(done - context - 1, done);
    sequences.push({ ids, firstScored: context + 1 - predicted });
  }
  return sequences;
}
