/**
 * Log-likelihoods of continuations. Tokens are divided as lm-evaluation-harness does (0.4.13,
 * lm_eval/api/model.py `_encode_pair` and `loglikelihood`, api_models.py for the length), so that its figures
 * and these are figures of the same tokens.
 */
import { InputError } from "../errors.js";
import { logSumExp } from "../exp.js";
import type { Session } from "../runtime/model.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { endWithoutSpace } from "./pages.js";
import type { Continuation } from "./task-file.js";

export type ContinuationTokenizer = Pick<Tokenizer, "encode" | "addsBos" | "bosTokenId" | "eosTokenId">;

export interface EncodedContinuation {
  /** Context and continuation. */
  readonly ids: Int32Array;
  /** Index of the continuation's first token, at least 1; ids.length when it has no token of its own. */
  readonly start: number;
}

export interface EncodeContinuationOptions {
  /** Tokens of context and continuation together: what is over is cut off on the left. */
  readonly limit: number;
  /** Begin every context with BOS where the tokenizer adds it. */
  readonly bos: boolean;
  /** For messages. */
  readonly where: string;
}

/**
 * White space at the context's end moves to the continuation; the whole is encoded, and as many tokens as the
 * context alone has are its context. An empty context is BOS, or else EOS. InputError when nothing is left to
 * predict the continuation from.
 */
export function encodeContinuation(
  tokenizer: ContinuationTokenizer,
  { context, continuation }: Continuation,
  { limit, bos, where }: EncodeContinuationOptions,
): EncodedContinuation {
  const [before, after] = divide(tokenizer, context, continuation, bos, where);
  const over = Math.max(0, before.length + after.length - limit);
  const start = before.length - over;
  if (start < 1)
    throw new InputError(
      before.length === 0
        ? `${where}: the context is white space only: give one with text, or an empty one`
        : `${where}: a continuation of ${after.length} tokens leaves no context: at most ${limit} tokens fit the model`,
    );
  return { ids: Int32Array.from([...before, ...after].slice(over)), start };
}

function divide(
  tokenizer: ContinuationTokenizer,
  context: string,
  continuation: string,
  bos: boolean,
  where: string,
): [before: number[], after: number[]] {
  const plain = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });
  const first = tokenizer.bosTokenId ?? tokenizer.eosTokenId;
  if (context === "") {
    if (first === null)
      throw new InputError(`${where}: the context is empty, and this tokenizer has neither BOS nor EOS`);
    const ids = plain(continuation);
    return ids[0] === first ? [ids.slice(0, 1), ids.slice(1)] : [[first], ids];
  }
  const prefix = bos && tokenizer.addsBos && tokenizer.bosTokenId !== null ? [tokenizer.bosTokenId] : [];
  const before = [...prefix, ...plain(context.slice(0, endWithoutSpace(context)))];
  return [before, [...prefix, ...plain(context + continuation)].slice(before.length)];
}

export interface ContinuationScore {
  /** Nats, at most 0. */
  readonly logLikelihood: number;
  /** At no place of the continuation is another token more likely. */
  readonly greedy: boolean;
}

/**
 * Scores continuations that may begin alike: what they share is computed once and stays in the KV cache, which
 * is rewound to it for each. `session` holds the longest; what it held is forgotten.
 */
export async function scoreContinuations(
  session: Session,
  vocabulary: number,
  continuations: readonly EncodedContinuation[],
): Promise<ContinuationScore[]> {
  const scores = continuations.map(() => ({ logLikelihood: 0, greedy: true }));
  const add = (which: number, position: number, row: Float32Array, logSum: number) => {
    const { ids, start } = continuations[which];
    const target = position + 1;
    if (target < start || target >= ids.length) return;
    scores[which].logLikelihood += row[ids[target]] - logSum;
    scores[which].greedy &&= isTop(row, ids[target]);
  };
  // The last token of each is only a target.
  const inputs = continuations.map(({ ids }) => ids.subarray(0, ids.length - 1));
  const common = commonPrefix(inputs);
  const shared = common < SMALLEST_PIECE ? 0 : common;
  const firstScored = Math.min(...continuations.map(({ start }) => start)) - 1;
  session.truncate(0);
  await forwardRows(session, vocabulary, inputs[0].subarray(0, shared), firstScored, (position, row) => {
    const logSum = logSumExp(row);
    for (const i of continuations.keys()) add(i, position, row, logSum);
  });
  for (const [i, { start }] of continuations.entries()) {
    const input = inputs[i];
    if (input.length === shared) continue;
    // Some of what is shared is run again rather than a piece too small.
    const from = Math.max(0, Math.min(shared, input.length - SMALLEST_PIECE));
    session.truncate(from);
    await forwardRows(session, vocabulary, input.subarray(from), start - 1, (position, row) => {
      if (position >= shared) add(i, position, row, logSumExp(row));
    });
  }
  if (scores.some(({ logLikelihood }) => !Number.isFinite(logLikelihood)))
    throw new InputError("the logits of the model are not finite: its weights are damaged");
  return scores;
}

/** Logits in memory at a time: 2^23 floats (32 MiB) are 170 tokens of a vocabulary of 49,152. */
const CHUNK_ELEMENTS = 2 ** 23;
/**
 * One or two tokens are multiplied with coded matrices another way, equal to rounding only. Without pieces so
 * small the numbers do not depend on what is shared: they are those of the whole sequence run at once, or by
 * the server.
 */
const SMALLEST_PIECE = 3;

/** Appends `ids` and visits the logits of every position from `first` on, which may lie before or after them. */
async function forwardRows(
  session: Session,
  vocabulary: number,
  ids: Int32Array,
  first: number,
  visit: (position: number, row: Float32Array) => void,
): Promise<void> {
  if (ids.length === 0) return;
  // Logits cost as much as some layers: most positions before the first wanted one go without.
  let unscored = Math.min(first - session.position, ids.length - SMALLEST_PIECE);
  if (unscored < SMALLEST_PIECE) unscored = 0;
  else await session.forward(ids.subarray(0, unscored));
  const chunk = Math.max(SMALLEST_PIECE, Math.floor(CHUNK_ELEMENTS / vocabulary));
  for (let from = unscored; from < ids.length; ) {
    const before = session.position;
    const rest = ids.length - from;
    const input = ids.subarray(from, from + (rest < chunk + SMALLEST_PIECE ? rest : chunk));
    from += input.length;
    const logits = await session.forward(input, { logits: "all" });
    for (let t = 0; t < input.length; t++)
      visit(before + t, logits.subarray(t * vocabulary, (t + 1) * vocabulary));
  }
}

function commonPrefix(rows: readonly Int32Array[]): number {
  let length = Math.min(...rows.map((row) => row.length));
  for (const row of rows) {
    let same = 0;
    while (same < length && row[same] === rows[0][same]) same++;
    length = same;
  }
  return length;
}

function isTop(row: Float32Array, token: number): boolean {
  for (let i = 0; i < row.length; i++) if (row[i] > row[token]) return false;
  return true;
}
