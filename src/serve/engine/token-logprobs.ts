/** Log-probabilities of tokens with those of the most likely ones, computed as `eval` computes them. */
import { InputError } from "../../errors.js";
import { logSumExp } from "../../exp.js";
import { topIds } from "../../runtime/ranking.js";

export interface TokenLogprob {
  readonly id: number;
  /** Nats, of the model's own distribution: before temperature, penalties and cuts. */
  readonly logprob: number;
}

export interface ScoredToken extends TokenLogprob {
  /** The most likely tokens, most likely first, the lowest id first among equals. */
  readonly top: readonly TokenLogprob[];
}

/** `row` [vocabularySize]: the logits that predict the token. InputError when they are not finite. */
export function scoreToken(row: Float32Array, id: number, alternatives: number): ScoredToken {
  const logSum = logSumExp(row);
  if (!Number.isFinite(logSum))
    throw new InputError("the logits of the model are not finite: its weights are damaged");
  const logprob = (token: number): TokenLogprob => ({ id: token, logprob: row[token] - logSum });
  return { ...logprob(id), top: topIds(row, alternatives).map(logprob) };
}
