/**
 * Chooses the next token from logits. The order of the steps is that of Hugging Face's `generate`:
 * repetition penalty, frequency and presence penalties, logit bias, temperature, top-k, top-p, min-p, then one draw.
 */
import { InputError, UsageError } from "../errors.js";
import { expNonPositive, logSumExp } from "../exp.js";
import { drawFromAll } from "./draw.js";
import { sortByLogit, topIds } from "./ranking.js";

export interface SamplingOptions {
  /** Divides the logits; 0 (default) takes the most likely token, the lowest id among equals. */
  readonly temperature?: number;
  /** Keep the k most likely tokens; 0 (default) keeps all. */
  readonly topK?: number;
  /** Keep the fewest most likely tokens that hold this share of the probability, (0, 1]; default 1. */
  readonly topP?: number;
  /** Keep tokens at least this many times as likely as the most likely one, [0, 1]; default 0. */
  readonly minP?: number;
  /**
   * Divides positive logits of tokens seen before, multiplies negative ones; 1 (default) does nothing.
   * CTRL, arXiv 1909.05858, section 4.1.
   */
  readonly repetitionPenalty?: number;
  /** Taken from a chosen token's logit for each time it was chosen; default 0. The prompt does not count. */
  readonly frequencyPenalty?: number;
  /** Taken from a chosen token's logit once; default 0. The prompt does not count. */
  readonly presencePenalty?: number;
  /** Added to the logits of these ids; -Infinity forbids a token. */
  readonly logitBias?: ReadonlyMap<number, number>;
  /** Same seed, same logits: same tokens. A whole number, taken modulo 2^32; default 0. */
  readonly seed?: number;
  /** Compute the log-probability of each chosen token (0.5 ms for 49,152 tokens). Default true. */
  readonly logprobs?: boolean;
}

export interface SampledToken {
  readonly id: number;
  /**
   * Natural log of the model's own probability of the token: at temperature 1, without penalty, bias or
   * cuts. Null where `logprobs` is off.
   */
  readonly logprob: number | null;
}

/** One per sequence: it holds the random state and the tokens seen. */
export class Sampler {
  readonly #options: Required<SamplingOptions>;
  readonly #random: () => number;
  readonly #seen = new Set<number>();
  /** How often each token was chosen. */
  readonly #chosen = new Map<number, number>();

  /** UsageError for a value out of range. */
  constructor(options: SamplingOptions = {}) {
    this.#options = checkSampling(options);
    this.#random = uniformSource(this.#options.seed);
  }

  /** Tokens that the repetition penalty is to count: the prompt. Chosen tokens are counted by `next`. */
  observe(ids: Iterable<number>): void {
    for (const id of ids) this.#seen.add(id);
  }

  /**
   * `logits` [vocabularySize] stay as they are. `mask`: the tokens that may be chosen, a bit an id from the lowest of
   * word 0 on; default all. InputError when a logit is not a finite number, or no token may be chosen.
   */
  next(logits: Float32Array, mask?: Int32Array | undefined): SampledToken {
    const likeliest = argmaxFinite(logits);
    if (likeliest === null)
      throw new InputError("the model's output is not a number: its weights are damaged");
    const adjusted = allowed(this.#adjust(logits), logits, mask);
    const best = adjusted === logits ? likeliest : argmax(adjusted);
    if (!Number.isFinite(adjusted[best]))
      throw new InputError(
        `the logit bias${mask ? " and the format together forbid" : " forbids"} every token`,
      );
    const id = this.#options.temperature === 0 ? best : this.#draw(adjusted, adjusted[best]);
    this.#seen.add(id);
    this.#chosen.set(id, (this.#chosen.get(id) ?? 0) + 1);
    return { id, logprob: this.#options.logprobs ? logProbability(logits, id) : null };
  }

  #adjust(logits: Float32Array): Float32Array {
    const { repetitionPenalty, frequencyPenalty, presencePenalty, logitBias } = this.#options;
    const countsChosen = frequencyPenalty !== 0 || presencePenalty !== 0;
    if (repetitionPenalty === 1 && !countsChosen && logitBias.size === 0) return logits;
    const adjusted = logits.slice();
    if (repetitionPenalty !== 1) {
      for (const id of this.#seen) {
        if (adjusted[id] > 0) adjusted[id] /= repetitionPenalty;
        else adjusted[id] *= repetitionPenalty;
      }
    }
    if (countsChosen)
      for (const [id, count] of this.#chosen) adjusted[id] -= presencePenalty + count * frequencyPenalty;
    for (const [id, bias] of logitBias) if (id < adjusted.length) adjusted[id] += bias;
    return adjusted;
  }

  #draw(logits: Float32Array, best: number): number {
    const { temperature, topK, topP, minP } = this.#options;
    const count = logits.length;
    const restricted = (topK > 0 && topK < count) || topP < 1 || minP > 0;
    if (!restricted) return drawFromAll(logits, best, temperature, this.#random());
    if (weights.length !== count) {
      weights = new Float64Array(count);
      everyId = Int32Array.from(logits.keys());
    }
    for (let id = 0; id < count; id++) weights[id] = expNonPositive((logits[id] - best) / temperature);
    let ids: ArrayLike<number> = everyId;
    if (topK > 0 && topK < count) ids = topIds(logits, topK);
    if (topP < 1) ids = nucleus(ids, logits, weights, topP);
    // The largest weight is 1, so min-p compares with the weights themselves.
    const mass = sumWeights(ids, weights, minP);
    let rest = this.#random() * mass;
    let last = ids[0];
    for (let i = 0; i < ids.length; i++) {
      const weight = weights[ids[i]];
      if (weight === 0 || weight < minP) continue;
      last = ids[i];
      rest -= weight;
      if (rest < 0) break;
    }
    return last;
  }
}

/** `adjusted` with -Infinity where the mask has no bit; a copy where it is `logits` itself. */
function allowed(adjusted: Float32Array, logits: Float32Array, mask: Int32Array | undefined): Float32Array {
  if (!mask) return adjusted;
  const out = adjusted === logits ? logits.slice() : adjusted;
  for (let id = 0; id < out.length; id++)
    if (((mask[id >> 5] >>> (id & 31)) & 1) === 0) out[id] = Number.NEGATIVE_INFINITY;
  return out;
}

/**
 * What a draw works in, kept to spare an allocation a token. One for all samplers: sequences that are drawn in
 * turn would push each other's weights, 8 bytes an id, out of the cache.
 */
let weights = new Float64Array(0);
let everyId = new Int32Array(0);

/** The fewest of `ids`, most likely first, whose weights reach the share `topP` of the weight of all of them. */
function nucleus(
  ids: ArrayLike<number>,
  logits: Float32Array,
  weights: Float64Array,
  topP: number,
): number[] {
  const total = sumWeights(ids, weights, 0);
  // All tokens lighter than this hold less than 1 - topP together, so none of them is among the fewest.
  const negligible = ((1 - topP) * total) / ids.length;
  const candidates: number[] = [];
  for (let i = 0; i < ids.length; i++) if (weights[ids[i]] >= negligible) candidates.push(ids[i]);
  const ranked = sortByLogit(candidates, logits);
  let kept = 0;
  let mass = 0;
  while (kept < ranked.length && mass < topP * total) mass += weights[ranked[kept++]];
  return ranked.slice(0, kept);
}

function sumWeights(ids: ArrayLike<number>, weights: Float64Array, least: number): number {
  let sum = 0;
  for (let i = 0; i < ids.length; i++) if (weights[ids[i]] >= least) sum += weights[ids[i]];
  return sum;
}

/** Index of the largest value, the first of equals. */
function argmax(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i] > values[best]) best = i;
  return best;
}

/** The same, or null where one of the values is not a finite number. */
function argmaxFinite(values: Float32Array): number | null {
  let best = 0;
  let top = values[0];
  // NaN as soon as a value is NaN or infinite.
  let sum = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i];
    // Not value - value, which V8 14 (Node 26) takes five times as long for.
    sum += value * 0;
    if (value > top) {
      top = value;
      best = i;
    }
  }
  return sum === 0 ? best : null;
}

/** Natural log of softmax(logits)[id], summed in double precision. */
export function logProbability(logits: Float32Array, id: number): number {
  return logits[id] - logSumExp(logits);
}

/** Uniform numbers in [0, 1): mulberry32, 32 bits of state. */
function uniformSource(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

function checkSampling(options: SamplingOptions): Required<SamplingOptions> {
  const {
    temperature = 0,
    topK = 0,
    topP = 1,
    minP = 0,
    repetitionPenalty = 1,
    frequencyPenalty = 0,
    presencePenalty = 0,
    logitBias = new Map<number, number>(),
    seed = 0,
    logprobs = true,
  } = options;
  const check = (valid: boolean, name: string, value: number, range: string) => {
    if (!valid) throw new UsageError(`${name} must be ${range}, not ${value}`);
  };
  check(Number.isFinite(temperature) && temperature >= 0, "temperature", temperature, "at least 0");
  check(Number.isSafeInteger(topK) && topK >= 0, "top-k", topK, "a whole number, 0 for no limit");
  check(topP > 0 && topP <= 1, "top-p", topP, "above 0 and at most 1");
  check(minP >= 0 && minP <= 1, "min-p", minP, "between 0 and 1");
  const penalty = repetitionPenalty;
  check(Number.isFinite(penalty) && penalty > 0, "repetition penalty", penalty, "above 0");
  check(Number.isFinite(frequencyPenalty), "frequency penalty", frequencyPenalty, "a number");
  check(Number.isFinite(presencePenalty), "presence penalty", presencePenalty, "a number");
  check(Number.isSafeInteger(seed) && seed >= 0, "seed", seed, "a whole number of at least 0");
  for (const [id, bias] of logitBias) {
    check(bias < Number.POSITIVE_INFINITY, `logit bias of token ${id}`, bias, "a number or -Infinity");
  }
  return {
    temperature,
    topK,
    topP,
    minP,
    repetitionPenalty,
    frequencyPenalty,
    presencePenalty,
    logitBias,
    seed,
    logprobs,
  };
}
