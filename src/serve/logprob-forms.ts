/** Log-probabilities in the two shapes of OpenAI's API: of completions (legacy) and of chat. */
import type { Detokenizer } from "../text/detokenizer.js";
import type { Tokenizer } from "../text/tokenizer.js";
import type { ScoredToken } from "./engine/token-logprobs.js";
import type { ScoredChatToken } from "./schemas/chat.js";
import type { CompletionLogprobs } from "./schemas/completions.js";

/** A token's text; bytes that are only a part of a character are U+FFFD. */
function tokenText(tokenizer: Tokenizer, id: number): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(tokenizer.tokenBytes(id));
}

export function chatLogprob(tokenizer: Tokenizer, { id, logprob, top }: ScoredToken): ScoredChatToken {
  const form = (token: number, value: number) => ({
    token: tokenText(tokenizer, token),
    logprob: value,
    bytes: [...tokenizer.tokenBytes(token)],
  });
  return { ...form(id, logprob), top_logprobs: top.map((other) => form(other.id, other.logprob)) };
}

/** The lists of one choice, filled token by token. Offsets count characters (code points) of the choice's text. */
export class CompletionLogprobLists {
  readonly #tokenizer: Tokenizer;
  readonly #alternatives: number;
  /** Of the generated tokens. */
  readonly #detokenizer: Detokenizer;
  #offset = 0;
  #tokens: string[] = [];
  #values: (number | null)[] = [];
  #tops: (Record<string, number> | null)[] = [];
  #offsets: number[] = [];

  constructor(tokenizer: Tokenizer, alternatives: number) {
    this.#tokenizer = tokenizer;
    this.#alternatives = alternatives;
    this.#detokenizer = tokenizer.createDetokenizer({ startOfText: false });
  }

  /** The echoed prompt: all its tokens, and scores from the second on. `hidden` tokens at its start are not in the text. */
  addPrompt(ids: readonly number[], scores: readonly ScoredToken[], hidden: number): void {
    const detokenizer = this.#tokenizer.createDetokenizer({ skipSpecialTokens: false });
    for (const [i, id] of ids.entries())
      this.#add(id, i === 0 ? null : scores[i - 1], i < hidden ? "" : detokenizer.push(id));
    this.#offset += length(detokenizer.flush());
  }

  addGenerated(id: number, score: ScoredToken): void {
    this.#add(id, score, this.#detokenizer.push(id));
  }

  /** What was added since the last call. */
  take(): CompletionLogprobs {
    const lists = {
      tokens: this.#tokens,
      token_logprobs: this.#values,
      top_logprobs: this.#alternatives === 0 ? null : this.#tops,
      text_offset: this.#offsets,
    };
    this.#tokens = [];
    this.#values = [];
    this.#tops = [];
    this.#offsets = [];
    return lists;
  }

  #add(id: number, score: ScoredToken | null, text: string): void {
    this.#tokens.push(tokenText(this.#tokenizer, id));
    this.#values.push(score?.logprob ?? null);
    this.#tops.push(score && this.#topOf(score));
    this.#offsets.push(this.#offset);
    this.#offset += length(text);
  }

  /** By text, and two tokens may have the same text (bytes of characters): the more likely one is given. */
  #topOf({ id, logprob, top }: ScoredToken): Record<string, number> {
    const byText = new Map<string, number>();
    for (const other of [...top, { id, logprob }]) {
      const text = tokenText(this.#tokenizer, other.id);
      if (!byText.has(text)) byText.set(text, other.logprob);
    }
    return Object.fromEntries(byText);
  }
}

function length(text: string): number {
  return [...text].length;
}
