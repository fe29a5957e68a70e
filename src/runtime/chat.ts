/**
 * A conversation with a model: the list of messages, the model's chat template, and one KV cache that is
 * kept across turns, so that a turn computes only what is new.
 */
import { InputError } from "../errors.js";
import { type ChatMessage, NO_CHAT_TEMPLATE } from "../text/chat-template.js";
import { encodePrompt, type GenerateEvent, type GenerateOptions, generate } from "./generate.js";
import type { LanguageModel } from "./model.js";
import { PrefixCache } from "./prefix-cache.js";

/**
 * `maxTokens` is per answer (default: until the context is full), `contextLength` what the whole conversation
 * may hold (default: the model's; the KV cache of that many tokens is allocated at once). With `onContextFull`
 * "shift" the oldest turns are forgotten when it is full, the system message never.
 */
export interface ChatOptions extends Omit<GenerateOptions, "cache" | "answer" | "signal"> {
  /** The system message. Default: none, or the template's own. */
  readonly system?: string | undefined;
}

export class ChatSession {
  readonly #model: LanguageModel;
  readonly #options: ChatOptions;
  readonly #cache: PrefixCache;
  #system: string | null;
  #turns: readonly ChatMessage[] = [];
  /** Messages since the beginning, those that were forgotten too. */
  #sent = 0;

  /** InputError when the model has no chat template, or memory does not suffice for the context. */
  constructor(model: LanguageModel, options: ChatOptions = {}) {
    if (model.tokenizer.chatTemplate === null) throw new InputError(NO_CHAT_TEMPLATE);
    this.#model = model;
    this.#options = options;
    this.#system = options.system ?? null;
    this.#cache = new PrefixCache(model.createSession(options.contextLength ?? model.contextLength));
  }

  /** The conversation so far (where the context shifts: its end), the system message first if there is one. */
  get messages(): readonly ChatMessage[] {
    return [...this.#systemMessages(), ...this.#turns];
  }

  /**
   * Asks and streams the answer. Question and answer become part of the conversation with the "end" event,
   * also when `signal` cut the answer short; if this throws, or is left before its end, the conversation
   * stays as it was. InputError when the conversation no longer fits the context.
   */
  async *send(
    content: string,
    { signal }: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<GenerateEvent, void> {
    const { tokenizer } = this.#model;
    const question: ChatMessage = { role: "user", content };
    let { ids } = encodePrompt(tokenizer, [...this.messages, question]);
    const shifts = this.#options.onContextFull === "shift";
    // The oldest turns go until a quarter of the context is free for the answer.
    let forgotten = 0;
    while (shifts && ids.length > 0.75 * this.#cache.capacity && forgotten < this.#turns.length) {
      forgotten += 2;
      ids = encodePrompt(tokenizer, [
        ...this.#systemMessages(),
        ...this.#turns.slice(forgotten),
        question,
      ]).ids;
    }
    const room = this.#cache.capacity - ids.length;
    if (room < 1) {
      throw new InputError(
        `the conversation has ${ids.length} tokens and the context holds ${this.#cache.capacity}: ` +
          "start a new one, or allow a longer context",
      );
    }
    const { maxTokens = shifts ? this.#cache.capacity : room, seed = 0 } = this.#options;
    const events = generate(this.#model, ids, {
      ...this.#options,
      maxTokens: shifts ? maxTokens : Math.min(maxTokens, room),
      // Every turn draws anew, and a conversation repeats with its seed.
      seed: seed + this.#sent,
      cache: this.#cache,
      answer: true,
      signal,
    });
    let answer = "";
    for await (const event of events) {
      answer += event.text;
      if (event.type === "end") {
        this.#turns = [...this.#turns.slice(forgotten), question, { role: "assistant", content: answer }];
        this.#sent += 2;
      }
      yield event;
    }
  }

  #systemMessages(): ChatMessage[] {
    return this.#system === null ? [] : [{ role: "system", content: this.#system }];
  }

  /** Forgets the turns; the system message stays. */
  reset(): void {
    this.#turns = [];
    this.#sent = 0;
  }

  /** Replaces the system message, null for none; the turns stay. */
  setSystem(system: string | null): void {
    this.#system = system;
  }

  /** Gives the KV cache's memory back. */
  close(): void {
    this.#cache.free();
  }
}
