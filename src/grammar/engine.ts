/**
 * Answers held to a JSON schema: after every token, which tokens may follow. Grammars are xgrammar's (arXiv
 * 2411.15100), in a thread of their own, so that masks are ready while the model computes.
 */
import { threads } from "#grammar-thread";
import { InputError } from "../errors.js";
import type { Tokenizer } from "../text/tokenizer.js";
import type { Constraint } from "./constraint.js";
import type { GrammarQuestion, GrammarReply, GrammarRequest, GrammarVocabulary } from "./messages.js";
import { type AnswerFormat, checkFormat } from "./schema.js";
import type { GrammarThread } from "./thread/thread.js";

export interface GrammarOptions {
  readonly tokenizer: Pick<Tokenizer, "vocabularySize" | "isSpecial" | "tokenBytes">;
  /** Logits that a model gives. */
  readonly vocabularySize: number;
  /** Ids that end an answer. */
  readonly endIds: Iterable<number>;
  /** For a schema to be compiled. Default 30. */
  readonly seconds?: number | undefined;
}

interface Waiting {
  readonly resolve: (mask: Int32Array) => void;
  readonly reject: (error: Error) => void;
}

export class GrammarEngine {
  readonly #vocabulary: GrammarVocabulary;
  readonly #seconds: number;
  /** By the request's number. */
  readonly #waiting = new Map<number, Waiting>();
  #thread: GrammarThread | undefined;
  #keys = 0;
  #requests = 0;

  constructor({ tokenizer, vocabularySize, endIds, seconds = 30 }: GrammarOptions) {
    const spelling = byteAlphabet();
    const tokens = Array.from({ length: vocabularySize }, (_, id) => {
      if (id >= tokenizer.vocabularySize || tokenizer.isSpecial(id)) return "";
      return Array.from(tokenizer.tokenBytes(id), (byte) => spelling[byte]).join("");
    });
    this.#vocabulary = { tokens, endIds: [...endIds] };
    this.#seconds = seconds;
  }

  /** A new answer. InputError, one line, for a schema that cannot be enforced, is too large, or takes too long. */
  async constrain(format: AnswerFormat): Promise<Constraint> {
    const { schema, strict } = checkFormat(format);
    const key = this.#keys++;
    const thread = this.#started();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const error = new InputError(
          `the JSON schema is not compiled after ${this.#seconds} seconds: make it smaller`,
        );
        reject(error);
        this.#end(error);
      }, 1000 * this.#seconds);
    });
    try {
      const first = await Promise.race([this.#ask(thread, { do: "start", key, schema, strict }), late]);
      const free = () => {
        if (thread === this.#thread) this.#post(thread, { do: "free", key });
      };
      if (first.every((word) => word === 0)) {
        free();
        throw new InputError("the model's vocabulary has no token that such an answer could begin with");
      }
      let mask = Promise.resolve(first);
      return {
        mask: () => mask,
        accept: (id) => {
          mask = this.#ask(thread, { do: "accept", key, id });
          // Whoever asks for the mask gets its error; nobody may ask, as after the last token.
          mask.catch(() => {});
        },
        free,
      };
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the thread; answers that are under way fail. */
  async close(): Promise<void> {
    await this.#end(new InputError("the model was closed"));
  }

  #started(): GrammarThread {
    if (this.#thread) return this.#thread;
    const thread: GrammarThread = threads.start(
      this.#vocabulary,
      (reply) => this.#take(thread, reply),
      (error) => {
        if (thread === this.#thread) this.#end(new InputError(`grammars cannot be used: ${error.message}`));
      },
    );
    this.#thread = thread;
    return thread;
  }

  #ask(thread: GrammarThread, question: GrammarQuestion): Promise<Int32Array> {
    return new Promise((resolve, reject) => {
      if (thread !== this.#thread) {
        reject(new InputError("the schema of this answer was lost: ask again"));
        return;
      }
      this.#waiting.set(this.#post(thread, question), { resolve, reject });
      thread.keepAlive(true);
    });
  }

  #post(thread: GrammarThread, question: GrammarQuestion): number {
    const request: GrammarRequest = { ...question, number: this.#requests++ };
    thread.post(request);
    return request.number;
  }

  #take(thread: GrammarThread, reply: GrammarReply): void {
    if (thread !== this.#thread) return;
    const waiting = this.#waiting.get(reply.number);
    this.#waiting.delete(reply.number);
    if (this.#waiting.size === 0) thread.keepAlive(false);
    if ("mask" in reply) {
      waiting?.resolve(reply.mask);
      return;
    }
    waiting?.reject(new InputError(`the JSON schema cannot be used: ${reply.error}`));
    if (reply.broken) this.#end(new InputError("the schema of this answer was lost: ask again"));
  }

  /** Everything that waits fails; the next answer starts another thread. */
  async #end(error: Error): Promise<void> {
    const thread = this.#thread;
    this.#thread = undefined;
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    await thread?.terminate();
  }
}

/** GPT-2's printable character for every byte: itself where it is one, else the next from U+0100 on. */
function byteAlphabet(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    return String.fromCharCode(printable ? byte : next++);
  });
}
