/**
 * Measures a model on a text, alone or against a reference: both run sequence by sequence over the same
 * tokens, their logits in chunks, so that memory does not grow with context, windows or text.
 */
import { InputError, throwIfAborted } from "../errors.js";
import { logSumExp } from "../exp.js";
import type { OnProgress } from "../progress.js";
import { eventLoopTurn } from "../runtime/event-loop.js";
import type { LanguageModel, Session } from "../runtime/model.js";
import {
  compareRows,
  type DivergenceSummary,
  type ProbabilityChange,
  summarise,
  summariseChange,
} from "./divergence.js";
import type { EvaluationJournal } from "./journal.js";
import { addMoments, addValue, type Moments, mean, noMoments, standardError } from "./moments.js";
import {
  chooseContext,
  type EvaluatedTokenizer,
  type Protocol,
  type ProtocolPlan,
  planProtocol,
  type Sequence,
} from "./protocol.js";

/** What is needed of a model: any `LanguageModel` has it. */
export interface EvaluatedModel extends Pick<LanguageModel, "config" | "contextLength" | "createSession"> {
  readonly tokenizer: EvaluatedTokenizer;
}

export interface EvaluateOptions {
  readonly model: EvaluatedModel;
  /** The model to compare with, usually the uncompressed one. Its tokenizer must give the same ids. */
  readonly reference?: EvaluatedModel | undefined;
  /** One text, or documents: protocol `word` scores them apart, the others join them with a blank line. */
  readonly text: string | readonly string[];
  readonly protocol?: Protocol | undefined;
  /**
   * Tokens of a window. Default 1024 (`word`: 2048), or the shortest context of the models where that is less;
   * `gptq` has no other than 2048.
   */
  readonly context?: number | undefined;
  /** Windows to measure (`word`: documents), from the start of the text. Default: all that fit. */
  readonly windows?: number | undefined;
  /** Keeps each finished sequence; a run with the journal of an earlier one of the same inputs goes on there. */
  readonly journal?: EvaluationJournal | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

export interface Evaluation {
  readonly protocol: Protocol;
  /** What the protocol did, in one line. */
  readonly protocolDescription: string;
  /** A token; under `word` a word. */
  readonly perplexity: number;
  /** Standard error of the perplexity to first order; null for a single token. */
  readonly perplexityStderr: number | null;
  readonly context: number;
  /** Windows, or documents under `word`. */
  readonly windows: number;
  readonly tokensScored: number;
  /** Mean nats per scored token of each sequence: of windows, or of the rolling windows of `word`. */
  readonly windowNats: readonly number[];
  readonly seconds: number;
  /** Only under `word`. */
  readonly words?: number;
  readonly tokenPerplexity?: number;
  readonly bytePerplexity?: number;
  readonly bitsPerByte?: number;
  /** Only with a reference: its perplexity over the same tokens, KL(reference || model) in nats, and the part of positions with the same most likely token. */
  readonly referencePerplexity?: number;
  readonly divergence?: DivergenceSummary;
  readonly deltaP?: ProbabilityChange;
  readonly sameTop?: number;
}

/** What a finished sequence leaves behind; the journal keeps it as JSON, which gives back every float64. */
type SequenceResult = {
  readonly nats: Moments;
  readonly reference?: {
    readonly nats: Moments;
    readonly changes: Moments;
    readonly divergences: number[];
    same: number;
  };
};

/** Logits of one model in memory at a time: 2^23 floats (32 MiB) are 170 tokens of a vocabulary of 49,152. */
const CHUNK_ELEMENTS = 2 ** 23;

/**
 * InputError: a text shorter than a window, a context longer than a model's, vocabularies that differ, logits
 * that are not finite. UsageError: a context that the protocol does not have.
 */
export async function evaluate(options: EvaluateOptions): Promise<Evaluation> {
  const started = performance.now();
  const { model, reference, text, protocol = "default", windows, journal, signal, onProgress } = options;
  const longest = Math.min(model.contextLength, reference?.contextLength ?? Number.POSITIVE_INFINITY);
  const context = chooseContext(protocol, longest, options.context);
  const documents = typeof text === "string" ? [text] : text;
  const planFor = ({ tokenizer }: EvaluatedModel) =>
    planProtocol(protocol, { tokenizer, documents, context, windows });
  const plan = planFor(model);
  if (reference) checkSameTokens(model, reference, plan, planFor(reference));

  const total = plan.sequences.length;
  const results: SequenceResult[] = [];
  const sessions: Session[] = [];
  try {
    for (const m of reference ? [model, reference] : [model]) sessions.push(m.createSession(context));
    for (const [index, sequence] of plan.sequences.entries()) {
      const key = `sequence ${index}`;
      const kept = journal?.get(key) as SequenceResult | undefined;
      const measured =
        kept ??
        (await measureSequence(sequence, sessions, model.config.vocabularySize, {
          where: `window ${index + 1}`,
          signal,
          onPart: (part) =>
            onProgress?.({
              stage: "evaluating",
              done: index + part,
              total,
              detail: `window ${index + 1} of ${total}`,
            }),
        }));
      if (kept === undefined) await journal?.put(key, measured);
      results.push(measured);
    }
  } finally {
    for (const session of sessions) session.free();
  }
  onProgress?.({ stage: "evaluating", done: total, total });
  return {
    protocol,
    protocolDescription: plan.description,
    context,
    windows: plan.windows,
    ...summariseText(plan, results),
    seconds: (performance.now() - started) / 1000,
  };
}

interface MeasureOptions {
  /** For messages. */
  readonly where: string;
  readonly signal: AbortSignal | undefined;
  /** The part of the sequence that is done, 0 … 1. */
  readonly onPart: (part: number) => void;
}

/** `sessions` are the model's and, to compare with, the reference's. */
async function measureSequence(
  { ids, firstScored }: Sequence,
  sessions: readonly Session[],
  vocabulary: number,
  { where, signal, onPart }: MeasureOptions,
): Promise<SequenceResult> {
  const [session, referenceSession] = sessions;
  const result: SequenceResult = {
    nats: noMoments(),
    ...(referenceSession && {
      reference: { nats: noMoments(), changes: noMoments(), divergences: [], same: 0 },
    }),
  };
  const chunk = Math.max(1, Math.floor(CHUNK_ELEMENTS / vocabulary));
  const last = ids.length - 1;
  for (const s of sessions) s.truncate(0);
  for (let from = 0; from < last; ) {
    throwIfAborted(signal);
    onPart(from / last);
    await eventLoopTurn();
    // What is not scored needs no logits. Row t of a chunk predicts the token from + t + 1.
    const scored = from >= firstScored - 1;
    const end = scored ? Math.min(from + chunk, last) : firstScored - 1;
    const input = ids.subarray(from, end);
    const wanted = { logits: scored ? "all" : "last" } as const;
    const logits = await session.forward(input, wanted);
    const referenceLogits = await referenceSession?.forward(input, wanted);
    for (let t = 0; scored && t < input.length; t++) {
      const rows = [t * vocabulary, (t + 1) * vocabulary] as const;
      const referenceRow = referenceLogits?.subarray(...rows);
      addPosition(result, ids[from + t + 1], logits.subarray(...rows), referenceRow, where);
    }
    from = end;
  }
  return result;
}

function addPosition(
  { nats, reference }: SequenceResult,
  target: number,
  row: Float32Array,
  referenceRow: Float32Array | undefined,
  where: string,
): void {
  if (!reference || !referenceRow) {
    addValue(nats, finite(logSumExp(row) - row[target], "the model", where));
    return;
  }
  const { divergence, sameTop, modelLogSum, referenceLogSum } = compareRows(referenceRow, row);
  const own = finite(modelLogSum - row[target], "the model", where);
  const theirs = finite(referenceLogSum - referenceRow[target], "the reference", where);
  addValue(nats, own);
  addValue(reference.nats, theirs);
  addValue(reference.changes, Math.exp(-own) - Math.exp(-theirs));
  reference.divergences.push(divergence);
  if (sameTop) reference.same++;
}

function finite(nats: number, whose: string, where: string): number {
  if (Number.isFinite(nats)) return nats;
  throw new InputError(`the logits of ${whose} are not finite in ${where}: its weights are damaged`);
}

function summariseText(plan: ProtocolPlan, results: readonly SequenceResult[]) {
  const nats = noMoments();
  for (const result of results) addMoments(nats, result.nats);
  const units = plan.words ?? nats.count;
  const perplexity = Math.exp(nats.sum / units);
  const stderr = standardError(nats);
  const ofBytes = plan.bytes === undefined ? undefined : nats.sum / plan.bytes;
  return {
    perplexity,
    perplexityStderr: stderr === null ? null : (perplexity * stderr * nats.count) / units,
    tokensScored: nats.count,
    windowNats: results.map((result) => mean(result.nats)),
    ...(ofBytes !== undefined && {
      words: units,
      tokenPerplexity: Math.exp(mean(nats)),
      bytePerplexity: Math.exp(ofBytes),
      bitsPerByte: ofBytes / Math.LN2,
    }),
    ...summariseComparison(units, results),
  };
}

function summariseComparison(units: number, results: readonly SequenceResult[]) {
  const compared = results.flatMap(({ reference }) => (reference ? [reference] : []));
  if (compared.length === 0) return {};
  const nats = noMoments();
  const changes = noMoments();
  let same = 0;
  for (const result of compared) {
    addMoments(nats, result.nats);
    addMoments(changes, result.changes);
    same += result.same;
  }
  const divergences = new Float64Array(nats.count);
  let at = 0;
  for (const result of compared) {
    divergences.set(result.divergences, at);
    at += result.divergences.length;
  }
  return {
    referencePerplexity: Math.exp(nats.sum / units),
    divergence: summarise(divergences),
    deltaP: summariseChange(changes),
    sameTop: same / nats.count,
  };
}

function checkSameTokens(
  model: EvaluatedModel,
  reference: EvaluatedModel,
  plan: ProtocolPlan,
  referencePlan: ProtocolPlan,
): void {
  const own = model.config.vocabularySize;
  const theirs = reference.config.vocabularySize;
  if (own !== theirs)
    throw new InputError(
      `model and reference cannot be compared: vocabularies of ${own} and ${theirs} tokens; ` +
        "the reference must be the model that was compressed",
    );
  const same =
    plan.sequences.length === referencePlan.sequences.length &&
    plan.sequences.every(({ ids }, i) => {
      const other = referencePlan.sequences[i].ids;
      return ids.length === other.length && ids.every((id, t) => id === other[t]);
    });
  if (!same)
    throw new InputError(
      "model and reference cannot be compared: their tokenizers give different token ids for this text; " +
        "the reference must be the model that was compressed",
    );
}
