/** What every answer has: its head and its token counts. */
import { randomUUID } from "node:crypto";
import type { SequenceEvent } from "./engine/sequence.js";

export function answerHead<Kind extends string>(prefix: string, object: Kind, model: string) {
  return { id: `${prefix}-${randomUUID()}`, object, created: Math.floor(Date.now() / 1000), model };
}

export class UsageCounter {
  readonly #promptTokens: number;
  #completionTokens = 0;

  /** Lengths of the request's prompts, each once, whatever the number of its texts. */
  constructor(prompts: readonly number[]) {
    this.#promptTokens = prompts.reduce((sum, length) => sum + length, 0);
  }

  count(event: SequenceEvent): void {
    if (event.type === "token") this.#completionTokens++;
  }

  get total() {
    const prompt_tokens = this.#promptTokens;
    const completion_tokens = this.#completionTokens;
    return { prompt_tokens, completion_tokens, total_tokens: prompt_tokens + completion_tokens };
  }
}
