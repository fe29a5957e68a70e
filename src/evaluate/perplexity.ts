/**
 * The perplexity protocol: the text is tokenised whole (BOS first only if the tokenizer adds it), cut into
 * windows of `context` tokens without overlap, the last partial window dropped; every token but a window's
 * first is scored. Perplexity is exp of the mean negative log-likelihood. Log-sums are in float64.
 */
import { InputError } from "../errors.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { expNonPositive } from "./exp.js";

/** What the protocol asks of a tokenizer. */
export type EvaluatedTokenizer = Pick<Tokenizer, "encodeLong" | "addsBos" | "bosTokenId">;

/** The token ids of a text as the protocol scores them. */
export function protocolTokens(tokenizer: EvaluatedTokenizer, text: string): Int32Array {
  const ids = tokenizer.encodeLong(text, { addSpecialTokens: false });
  if (!tokenizer.addsBos || tokenizer.bosTokenId === null) return ids;
  const withBos = new Int32Array(ids.length + 1);
  withBos[0] = tokenizer.bosTokenId;
  withBos.set(ids, 1);
  return withBos;
}

/**
 * The first `windows` windows (all of them by default) of `context` tokens.
 * InputError when the text is shorter than one window.
 */
export function cutWindows(
  ids: Int32Array,
  context: number,
  windows = Number.POSITIVE_INFINITY,
): Int32Array[] {
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

/** log(sum(exp(row))) in float64. */
export function logSumExp(row: Float32Array): number {
  let max = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < row.length; i++) if (row[i] > max) max = row[i];
  let sum = 0;
  for (let i = 0; i < row.length; i++) sum += expNonPositive(row[i] - max);
  return max + Math.log(sum);
}

/** Sum of negative log-likelihoods in nats, window by window. */
export class LikelihoodSum {
  /** Mean nats per scored token of each finished window. */
  readonly windowNats: number[] = [];
  readonly #of: string;
  #total = 0;
  #tokens = 0;
  #window = 0;
  #windowTokens = 0;

  /** `of` names whose likelihoods these are in messages: "the model". */
  constructor(of: string) {
    this.#of = of;
  }

  /** Adds one scored token. InputError when it is not finite: the weights are broken. */
  add(nats: number): void {
    if (!Number.isFinite(nats))
      throw new InputError(
        `the logits of ${this.#of} are not finite in window ${this.windowNats.length + 1}: its weights are damaged`,
      );
    this.#window += nats;
    this.#windowTokens++;
  }

  endWindow(): void {
    this.windowNats.push(this.#window / this.#windowTokens);
    this.#total += this.#window;
    this.#tokens += this.#windowTokens;
    this.#window = 0;
    this.#windowTokens = 0;
  }

  get tokens(): number {
    return this.#tokens;
  }

  get perplexity(): number {
    return Math.exp(this.#total / this.#tokens);
  }
}
