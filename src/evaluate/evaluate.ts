/**
 * Measures a model on a text, alone or against a reference: both run window by window over the same tokens,
 * their logits in chunks, so that memory does not grow with context, windows or text.
 */
import { InputError, throwIfAborted } from "../errors.js";
import type { OnProgress } from "../progress.js";
import type { LanguageModel, Session } from "../runtime/model.js";
import { compareRows, type DivergenceSummary, summarise } from "./divergence.js";
import {
  cutWindows,
  type EvaluatedTokenizer,
  LikelihoodSum,
  logSumExp,
  protocolTokens,
} from "./perplexity.js";

/** What is needed of a model: any `LanguageModel` has it. */
export interface EvaluatedModel extends Pick<LanguageModel, "config" | "contextLength" | "createSession"> {
  readonly tokenizer: EvaluatedTokenizer;
}

export interface EvaluateOptions {
  readonly model: EvaluatedModel;
  /** The model to compare with, usually the uncompressed one. Its tokenizer must give the same ids. */
  readonly reference?: EvaluatedModel | undefined;
  readonly text: string;
  /** Tokens of a window. Default 1024, or the shortest context of the models where that is less. */
  readonly context?: number | undefined;
  /** Windows to measure, from the start of the text. Default: all that fit. */
  readonly windows?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

export interface Evaluation {
  readonly perplexity: number;
  readonly context: number;
  readonly windows: number;
  readonly tokensScored: number;
  /** Mean nats per token of each window. */
  readonly windowNats: readonly number[];
  readonly seconds: number;
  /** Only with a reference: its perplexity over the same tokens, KL(reference || model) in nats, and the part of positions with the same most likely token. */
  readonly referencePerplexity?: number;
  readonly divergence?: DivergenceSummary;
  readonly sameTop?: number;
}

export const DEFAULT_CONTEXT = 1024;
/** Logits of one model in memory at a time: 2^23 floats (32 MiB) are 170 tokens of a vocabulary of 49,152. */
const CHUNK_ELEMENTS = 2 ** 23;

/** InputError: a text shorter than a window, a context longer than a model's, vocabularies that differ. */
export async function evaluate(options: EvaluateOptions): Promise<Evaluation> {
  const started = performance.now();
  const { model, reference, text, signal, onProgress } = options;
  const context = chooseContext(options);
  const ids = protocolTokens(model.tokenizer, text);
  const windows = cutWindows(ids, context, options.windows);
  if (reference) checkSameVocabulary(model, reference, text, ids);

  const own = new LikelihoodSum("the model");
  const theirs = new LikelihoodSum("the reference");
  const divergences = new Float64Array(reference ? windows.length * (context - 1) : 0);
  let compared = 0;
  let same = 0;
  const vocabulary = model.config.vocabularySize;
  const chunk = Math.max(1, Math.floor(CHUNK_ELEMENTS / vocabulary));
  const sessions: Session[] = [];
  const open = (m: EvaluatedModel) => {
    const session = m.createSession(context);
    sessions.push(session);
    return session;
  };
  try {
    const session = open(model);
    const referenceSession = reference && open(reference);
    for (const [index, window] of windows.entries()) {
      for (const s of sessions) s.truncate(0);
      // The last token is only a target: nothing follows it that could be scored.
      for (let from = 0; from < context - 1; from += chunk) {
        throwIfAborted(signal);
        onProgress?.({
          stage: "evaluating",
          done: index + from / context,
          total: windows.length,
          detail: `window ${index + 1} of ${windows.length}`,
        });
        // Ctrl-C is an event: it is seen only when the event loop turns.
        await new Promise((resolve) => setTimeout(resolve));
        const input = window.subarray(from, Math.min(from + chunk, context - 1));
        const logits = await session.forward(input, { logits: "all" });
        const referenceLogits = await referenceSession?.forward(input, { logits: "all" });
        for (let t = 0; t < input.length; t++) {
          const target = window[from + t + 1];
          const row = logits.subarray(t * vocabulary, (t + 1) * vocabulary);
          if (!referenceLogits) {
            own.add(logSumExp(row) - row[target]);
            continue;
          }
          const referenceRow = referenceLogits.subarray(t * vocabulary, (t + 1) * vocabulary);
          const comparison = compareRows(referenceRow, row);
          own.add(comparison.modelLogSum - row[target]);
          theirs.add(comparison.referenceLogSum - referenceRow[target]);
          divergences[compared++] = comparison.divergence;
          if (comparison.sameTop) same++;
        }
      }
      own.endWindow();
      if (reference) theirs.endWindow();
    }
  } finally {
    for (const session of sessions) session.free();
  }
  onProgress?.({ stage: "evaluating", done: windows.length, total: windows.length });
  return {
    perplexity: own.perplexity,
    context,
    windows: windows.length,
    tokensScored: own.tokens,
    windowNats: own.windowNats,
    seconds: (performance.now() - started) / 1000,
    ...(reference && {
      referencePerplexity: theirs.perplexity,
      divergence: summarise(divergences),
      sameTop: same / compared,
    }),
  };
}

function chooseContext({ model, reference, context }: EvaluateOptions): number {
  const longest = Math.min(model.contextLength, reference?.contextLength ?? Number.POSITIVE_INFINITY);
  const chosen = context ?? Math.min(DEFAULT_CONTEXT, longest);
  if (chosen > longest)
    throw new InputError(`a context of ${chosen} tokens is longer than the model's: give ${longest} or less`);
  if (!Number.isSafeInteger(chosen) || chosen < 2)
    throw new InputError(`a context of ${chosen} tokens scores nothing: give a whole number of at least 2`);
  return chosen;
}

function checkSameVocabulary(
  model: EvaluatedModel,
  reference: EvaluatedModel,
  text: string,
  ids: Int32Array,
): void {
  const own = model.config.vocabularySize;
  const theirs = reference.config.vocabularySize;
  if (own !== theirs)
    throw new InputError(
      `model and reference cannot be compared: vocabularies of ${own} and ${theirs} tokens; ` +
        "the reference must be the model that was compressed",
    );
  const referenceIds = protocolTokens(reference.tokenizer, text);
  if (ids.length !== referenceIds.length || ids.some((id, i) => id !== referenceIds[i]))
    throw new InputError(
      "model and reference cannot be compared: their tokenizers give different token ids for this text; " +
        "the reference must be the model that was compressed",
    );
}
