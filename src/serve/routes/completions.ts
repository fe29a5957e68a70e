/** POST /v1/completions: text that continues a prompt, and log-probabilities of the prompt itself. */
import type { Tokenizer } from "../../text/tokenizer.js";
import { answerHead, UsageCounter } from "../answer.js";
import type { App, ServeContext } from "../context.js";
import type { SequenceEvent, SequenceRequest } from "../engine/sequence.js";
import { checkModel, roomFor, samplingOf, seedsOf, stopsOf } from "../generation.js";
import { CompletionLogprobLists } from "../logprob-forms.js";
import { generationResponses } from "../schemas/common.js";
import { CompletionRequest, CompletionResponse } from "../schemas/completions.js";
import { merged, sendEvents } from "../stream.js";

const DEFAULT_TOKENS = 16;

interface Prompt {
  readonly ids: readonly number[];
  /** What `echo` gives back. */
  readonly text: string;
  /** Tokens at the start that are not in the text: BOS, where the tokenizer added it. */
  readonly hidden: number;
}

type Choice = CompletionResponse["choices"][number];

export function addCompletions(app: App, context: ServeContext): void {
  const { model, name, scheduler, requests, onDefect } = context;
  app.post(
    "/v1/completions",
    {
      schema: {
        operationId: "createCompletion",
        summary: "Continues a text",
        body: CompletionRequest,
        response: generationResponses(CompletionResponse, CompletionResponse),
      },
    },
    async (request, reply) => {
      const { body } = request;
      checkModel(body.model, name);
      const { echo, logprobs = null } = body;
      const sampling = samplingOf(body);
      const stop = stopsOf(body);
      const seeds = seedsOf(body);
      const choices = promptsOf(model.tokenizer, body.prompt).flatMap((prompt) => {
        const maxTokens = roomFor(
          model,
          prompt.ids,
          body.max_tokens ?? defaultTokens(context, prompt),
          "prompt",
        );
        return seeds.map((seed) => {
          const sequence: SequenceRequest = {
            ids: prompt.ids,
            maxTokens,
            sampling: { ...sampling, seed },
            stop,
            answer: false,
            logprobs,
            promptLogprobs: echo ? logprobs : null,
          };
          return { prompt, sequence };
        });
      });
      const sequences = choices.map(({ sequence }) => sequence);
      const forms = choices.map(({ prompt }, index) => new ChoiceForm(model.tokenizer, prompt, index, body));
      const events = merged(scheduler.submit(sequences, requests.signalFor(reply)));
      const head = answerHead("cmpl", "text_completion" as const, name);
      // A prompt counts once, whatever the number of its texts.
      const prompts = choices.filter((_, i) => i % seeds.length === 0);
      const usage = new UsageCounter(prompts.map(({ prompt }) => prompt.ids.length));

      const deltas = async function* (): AsyncGenerator<Choice, void> {
        for await (const [index, event] of events) {
          usage.count(event);
          const choice = forms[index].delta(event);
          if (choice) yield choice;
        }
      };
      if (body.stream) {
        const withUsage = body.stream_options?.include_usage ?? false;
        const chunks = async function* (): AsyncGenerator<CompletionResponse, void> {
          for await (const choice of deltas())
            yield { ...head, choices: [choice], ...(withUsage && { usage: null }) };
          if (withUsage) yield { ...head, choices: [], usage: usage.total };
        };
        return sendEvents(reply, chunks(), onDefect);
      }
      const whole = choices.map((_, index) => emptyChoice(index));
      for await (const delta of deltas()) append(whole[delta.index], delta);
      return { ...head, choices: whole, usage: usage.total };
    },
  );
}

function defaultTokens({ model }: ServeContext, { ids }: Prompt): number {
  return Math.max(1, Math.min(DEFAULT_TOKENS, model.contextLength - ids.length));
}

function promptsOf(tokenizer: Tokenizer, prompt: CompletionRequest["prompt"]): Prompt[] {
  const ofText = (text: string): Prompt => {
    const ids = tokenizer.encode(text);
    const bos = tokenizer.addsBos && ids[0] === tokenizer.bosTokenId;
    return { ids, text, hidden: bos ? 1 : 0 };
  };
  const ofIds = (ids: readonly number[]): Prompt => ({
    ids,
    text: tokenizer.decode(ids, { skipSpecialTokens: false }),
    hidden: 0,
  });
  if (typeof prompt === "string") return [ofText(prompt)];
  if (isIds(prompt)) return [ofIds(prompt)];
  return prompt.map((one) => (typeof one === "string" ? ofText(one) : ofIds(one)));
}

function isIds(prompt: Exclude<CompletionRequest["prompt"], string>): prompt is number[] {
  return typeof prompt[0] === "number";
}

/** What a sequence's events add to its choice. */
class ChoiceForm {
  readonly #prompt: Prompt;
  readonly #index: number;
  readonly #lists: CompletionLogprobLists | null;
  #toEcho: boolean;

  constructor(tokenizer: Tokenizer, prompt: Prompt, index: number, { echo, logprobs }: CompletionRequest) {
    this.#prompt = prompt;
    this.#index = index;
    this.#toEcho = echo ?? false;
    this.#lists = typeof logprobs === "number" ? new CompletionLogprobLists(tokenizer, logprobs) : null;
  }

  /** Null where there is nothing to tell yet. */
  delta(event: SequenceEvent): Choice | null {
    if (event.type === "prompt") this.#lists?.addPrompt(this.#prompt.ids, event.scores, this.#prompt.hidden);
    if (event.type === "token" && event.score) this.#lists?.addGenerated(event.id, event.score);
    const text = (this.#toEcho ? this.#prompt.text : "") + (event.type === "prompt" ? "" : event.text);
    const echoed = this.#toEcho;
    this.#toEcho = false;
    const finish_reason = event.type === "end" ? event.finishReason : null;
    if (text === "" && !echoed && finish_reason === null && this.#lists === null) return null;
    return { text, index: this.#index, logprobs: this.#lists?.take() ?? null, finish_reason };
  }
}

function emptyChoice(index: number): Choice {
  return { text: "", index, logprobs: null, finish_reason: null };
}

function append(whole: Choice, delta: Choice): void {
  whole.text += delta.text;
  whole.finish_reason = delta.finish_reason;
  if (!delta.logprobs) return;
  if (!whole.logprobs) {
    whole.logprobs = delta.logprobs;
    return;
  }
  const { tokens, token_logprobs, top_logprobs, text_offset } = delta.logprobs;
  whole.logprobs.tokens = whole.logprobs.tokens.concat(tokens);
  whole.logprobs.token_logprobs = whole.logprobs.token_logprobs.concat(token_logprobs);
  whole.logprobs.text_offset = whole.logprobs.text_offset.concat(text_offset);
  if (top_logprobs) whole.logprobs.top_logprobs = (whole.logprobs.top_logprobs ?? []).concat(top_logprobs);
}
