/**
 * Text generation: prompt in, an async stream of tokens and text out. Knows nothing of chat templates or of
 * terminals.
 */
import { InputError, UsageError } from "../errors.js";
import type { Constraint } from "../grammar/constraint.js";
import type { AnswerFormat } from "../grammar/schema.js";
import type { ChatMessage } from "../text/chat-template.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { eventLoopTurn } from "./event-loop.js";
import type { LanguageModel } from "./model.js";
import { PrefixCache } from "./prefix-cache.js";
import { Sampler, type SamplingOptions } from "./sampling.js";
import { StopMatcher } from "./stop.js";

/**
 * What to do when prompt and answer fill the context: refuse what would not fit beforehand, or forget the older
 * half of the text, its first tokens apart, whenever it is full.
 */
export type OnContextFull = "refuse" | "shift";

/**
 * Tokens at the beginning that a shift keeps: attention that has nothing to look at goes to them, and a model that
 * loses them breaks down ("attention sinks", arXiv 2309.17453, section 3.1: four suffice).
 */
const SINK_TOKENS = 4;

/**
 * Prompt tokens run between two looks at `signal`. The transformer's own chunk, so nothing is lost; fewer on a
 * page's own thread, which cannot draw or answer meanwhile. The result is the same.
 */
const PREFILL_CHUNK = typeof document === "undefined" ? 512 : 64;

export interface GenerateOptions extends SamplingOptions {
  /** Tokens to generate at most. Default: until the context is full; without limit where it shifts. */
  readonly maxTokens?: number | undefined;
  /** Longest sequence, prompt and answer; default and upper limit: the model's context length. */
  readonly contextLength?: number | undefined;
  /** Default "refuse". A prompt that does not fit is refused in any case. */
  readonly onContextFull?: OnContextFull | undefined;
  /** Strings that end the text; they are not part of it. */
  readonly stop?: readonly string[];
  /** JSON, or JSON that fits a schema. A text that ends by "length" is only the beginning of it. Default: any text. */
  readonly format?: AnswerFormat | undefined;
  /** Ends the stream with finishReason "abort", once the chunk or token being computed is done. */
  readonly signal?: AbortSignal | undefined;
  /**
   * KV cache of earlier calls with the same model, whose common prefix is reused; it stays open. Default: a
   * cache of its own, as large as needed.
   */
  readonly cache?: PrefixCache;
  /**
   * Whether the answer is a text of its own (a chat turn), whose first word has no leading space, or
   * continues the prompt. Default: true for a conversation only.
   */
  readonly answer?: boolean;
}

export type FinishReason = "stop" | "length" | "abort";

/** One generated token. The texts of all events joined are the generated text. */
export interface TokenEvent {
  readonly type: "token";
  /** The token's id. */
  readonly token: number;
  /** Text that has become certain: empty while a character or a possible stop string is incomplete. */
  readonly text: string;
  /** Natural log of the model's probability of the token, or null where `logprobs` is off. */
  readonly logprob: number | null;
  /** From the start of `generate` to this token, in seconds. */
  readonly seconds: number;
}

/** The last event of every stream. */
export interface EndEvent {
  readonly type: "end";
  /** Text that was held back, now that nothing follows. */
  readonly text: string;
  /** "stop": an end-of-text token or a stop string; "length": maxTokens or the context is used up. */
  readonly finishReason: FinishReason;
  readonly promptTokens: number;
  /** Of the prompt, taken from `cache` instead of computed. */
  readonly reusedTokens: number;
  /** Generated tokens, the end-of-text token not counted. */
  readonly tokens: number;
  /** From the start to the first token's logits. */
  readonly prefillSeconds: number;
  /** Computing and choosing all later tokens; what the caller does between events is not counted. */
  readonly decodeSeconds: number;
  /** Prompt tokens computed per second, and tokens per second after the first; null where none were. */
  readonly prefillTokensPerSecond: number | null;
  readonly decodeTokensPerSecond: number | null;
}

export type GenerateEvent = TokenEvent | EndEvent;

/** Text, encoded with the special tokens that the tokenizer adds; token ids as they are; or a conversation. */
export type Prompt = string | readonly number[] | readonly ChatMessage[];

/**
 * Generates what follows `prompt`; a conversation goes through the model's chat template, and its answer is a
 * text of its own. Throws InputError before any work for an empty prompt or one that leaves no room for `maxTokens`
 * in the context, UsageError for options out of range.
 */
export async function* generate(
  model: LanguageModel,
  prompt: Prompt,
  options: GenerateOptions = {},
): AsyncGenerator<GenerateEvent, void> {
  const { signal, stop = [], format } = options;
  if (format && !model.createConstraint)
    throw new UsageError("this model's answers cannot be held to a format");
  const { ids, conversation } = encodePrompt(model.tokenizer, prompt);
  const answer = options.answer ?? conversation;
  const sampler = new Sampler(options);
  const { maxTokens, capacity } = roomForAnswer(model, ids.length, options);
  const endIds = endTokenIds(model);
  const detokenizer = model.tokenizer.createDetokenizer({ startOfText: answer });
  const matcher = new StopMatcher(stop);
  const cache = options.cache ?? new PrefixCache(model.createSession(capacity));
  sampler.observe(ids);
  let constraint: Constraint | undefined;
  try {
    constraint = format && (await model.createConstraint?.(format));
    const start = performance.now();
    const reusedTokens = cache.keepPrefix(ids);
    let logits = await run(cache, ids.slice(reusedTokens), signal);
    const prefillEnd = performance.now();
    const prefilled = logits ? ids.length - reusedTokens : 0;

    let finishReason: FinishReason = "abort";
    let tokens = 0;
    let decoded = 0;
    let idle = 0;
    while (logits) {
      const { id, logprob } = sampler.next(logits, await constraint?.mask());
      if (endIds.has(id)) {
        finishReason = "stop";
        break;
      }
      tokens++;
      constraint?.accept(id);
      const { text, stopped } = matcher.push(detokenizer.push(id));
      const yielded = performance.now();
      yield { type: "token", token: id, text, logprob, seconds: (yielded - start) / 1000 };
      idle += performance.now() - yielded;
      if (stopped || tokens === maxTokens) {
        finishReason = stopped ? "stop" : "length";
        break;
      }
      if (cache.length === capacity) makeRoom(cache);
      logits = await run(cache, [id], signal);
      if (logits) decoded++;
    }
    const prefillSeconds = (prefillEnd - start) / 1000;
    const decodeSeconds = (performance.now() - prefillEnd - idle) / 1000;
    yield {
      type: "end",
      text: matcher.finish(detokenizer.flush()),
      finishReason,
      promptTokens: ids.length,
      reusedTokens,
      tokens,
      prefillSeconds,
      decodeSeconds,
      prefillTokensPerSecond: rate(prefilled, prefillSeconds),
      decodeTokensPerSecond: rate(decoded, decodeSeconds),
    };
  } finally {
    constraint?.free();
    if (!options.cache) cache.free();
  }
}

/** The prompt's token ids. InputError for a conversation with a model that has no chat template. */
export function encodePrompt(tokenizer: Tokenizer, prompt: Prompt): { ids: number[]; conversation: boolean } {
  if (typeof prompt === "string") return { ids: tokenizer.encode(prompt), conversation: false };
  if (isTokenIds(prompt)) return { ids: [...prompt], conversation: false };
  // The template writes BOS itself where the model wants one.
  const ids = tokenizer.encode(tokenizer.applyChatTemplate(prompt), { addSpecialTokens: false });
  return { ids, conversation: true };
}

function isTokenIds(prompt: readonly number[] | readonly ChatMessage[]): prompt is readonly number[] {
  return typeof prompt[0] !== "object";
}

/** Appends `ids` to the cache in chunks; the logits after the last one, or null once the signal is aborted. */
async function run(
  cache: PrefixCache,
  ids: readonly number[],
  signal: AbortSignal | undefined,
): Promise<Float32Array | null> {
  let logits: Float32Array | null = null;
  for (let i = 0; i < ids.length; i += PREFILL_CHUNK) {
    await eventLoopTurn();
    if (signal?.aborted) return null;
    logits = await cache.forward(ids.slice(i, i + PREFILL_CHUNK));
  }
  return signal?.aborted ? null : logits;
}

/** Forgets the older half of the tokens, the first ones apart. */
function makeRoom(cache: PrefixCache): void {
  const keep = Math.min(SINK_TOKENS, cache.length >> 1);
  cache.shift(keep, Math.ceil((cache.length - keep) / 2));
}

/** How many tokens may be generated after a prompt of this length, and how many the KV cache holds. */
function roomForAnswer(
  model: LanguageModel,
  promptTokens: number,
  options: GenerateOptions,
): { maxTokens: number; capacity: number } {
  const { maxTokens, contextLength = model.contextLength, cache, onContextFull = "refuse" } = options;
  if (onContextFull !== "refuse" && onContextFull !== "shift")
    throw new UsageError(`a full context can be "refuse" or "shift", not ${onContextFull}`);
  if (!Number.isSafeInteger(contextLength) || contextLength < 1 || contextLength > model.contextLength) {
    throw new UsageError(
      `a context of ${contextLength} tokens is not possible: the model's is 1 to ${model.contextLength}`,
    );
  }
  if (maxTokens !== undefined && (!Number.isSafeInteger(maxTokens) || maxTokens < 1)) {
    throw new UsageError(`the number of new tokens must be a whole number of at least 1, not ${maxTokens}`);
  }
  if (promptTokens === 0) throw new InputError("the prompt is empty: give the model at least one token");
  const limit = Math.min(contextLength, cache?.capacity ?? contextLength);
  const room = limit - promptTokens;
  if (room < 1) {
    throw new InputError(
      `the prompt has ${promptTokens} tokens and the context holds ${limit}: shorten the prompt`,
    );
  }
  if (onContextFull === "shift") {
    const wanted = maxTokens ?? Number.POSITIVE_INFINITY;
    return { maxTokens: wanted, capacity: Math.min(limit, promptTokens + wanted) };
  }
  if (maxTokens !== undefined && maxTokens > room) {
    throw new InputError(
      `a prompt of ${promptTokens} tokens and ${maxTokens} new ones exceed the context of ${limit}: ` +
        `shorten the prompt, ask for at most ${room} new tokens, or let the context shift`,
    );
  }
  const tokens = maxTokens ?? room;
  return { maxTokens: tokens, capacity: cache?.capacity ?? promptTokens + tokens };
}

/** Every token that ends a text: the configuration's and the tokenizer's. */
export function endTokenIds(model: Pick<LanguageModel, "config" | "tokenizer">): ReadonlySet<number> {
  const ids = new Set(model.config.eosTokenIds);
  if (model.tokenizer.eosTokenId !== null) ids.add(model.tokenizer.eosTokenId);
  return ids;
}

function rate(count: number, seconds: number): number | null {
  return count > 0 && seconds > 0 ? count / seconds : null;
}
