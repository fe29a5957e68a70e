/** POST /v1/chat/completions: the answer to a conversation, through the model's chat template. */
import { type ChatMessage, NO_CHAT_TEMPLATE } from "../../text/chat-template.js";
import { answerHead, UsageCounter } from "../answer.js";
import type { App, ServeContext } from "../context.js";
import type { SequenceEvent, SequenceRequest } from "../engine/sequence.js";
import { unsupported } from "../errors.js";
import { checkModel, constraintsOf, formatOf, roomFor, samplingOf, seedsOf, stopsOf } from "../generation.js";
import { chatLogprob } from "../logprob-forms.js";
import { ChatChunk, ChatRequest, ChatResponse, type RequestMessage } from "../schemas/chat.js";
import { generationResponses } from "../schemas/common.js";
import { merged, sendEvents } from "../stream.js";

type ChunkChoice = ChatChunk["choices"][number];
type Choice = ChatResponse["choices"][number];

export function addChat(app: App, context: ServeContext): void {
  const { model, name, scheduler, requests, onDefect } = context;
  const { tokenizer } = model;
  app.post(
    "/v1/chat/completions",
    {
      schema: {
        operationId: "createChatCompletion",
        summary: "Answers a conversation",
        body: ChatRequest,
        response: generationResponses(ChatResponse, ChatChunk),
      },
    },
    async (request, reply) => {
      const { body } = request;
      checkModel(body.model, name);
      const tools = body.tool_choice === "none" ? undefined : body.tools;
      if (tokenizer.chatTemplate === null)
        throw unsupported("messages", `${NO_CHAT_TEMPLATE}: use /v1/completions`);
      const text = tokenizer.applyChatTemplate(body.messages.map(templateMessage), { tools });
      // The template writes BOS itself where the model wants one.
      const ids = tokenizer.encode(text, { addSpecialTokens: false });
      const maxTokens = roomFor(model, ids, body.max_completion_tokens ?? body.max_tokens, "messages");
      const sampling = samplingOf(body);
      const seeds = seedsOf(body);
      const constraints = await constraintsOf(model, formatOf(body), seeds.length);
      const sequences = seeds.map(
        (seed, i): SequenceRequest => ({
          ids,
          maxTokens,
          sampling: { ...sampling, seed },
          constraint: constraints[i],
          stop: stopsOf(body),
          answer: true,
          logprobs: body.logprobs ? (body.top_logprobs ?? 0) : null,
          promptLogprobs: null,
        }),
      );
      const events = merged(scheduler.submit(sequences, requests.signalFor(reply)));
      const usage = new UsageCounter([ids.length]);

      const choiceOf = (index: number, event: SequenceEvent): ChunkChoice | null => {
        if (event.type === "prompt") return null;
        const score = event.type === "token" ? event.score : null;
        const finish_reason = event.type === "end" ? event.finishReason : null;
        if (event.text === "" && !score && !finish_reason) return null;
        return {
          index,
          delta: event.text === "" ? {} : { content: event.text },
          logprobs: score ? { content: [chatLogprob(tokenizer, score)], refusal: null } : null,
          finish_reason,
        };
      };
      const deltas = async function* (): AsyncGenerator<ChunkChoice, void> {
        for await (const [index, event] of events) {
          usage.count(event);
          const choice = choiceOf(index, event);
          if (choice) yield choice;
        }
      };
      if (body.stream) {
        const head = answerHead("chatcmpl", "chat.completion.chunk" as const, name);
        const withUsage = body.stream_options?.include_usage ?? false;
        const chunks = async function* (): AsyncGenerator<ChatChunk, void> {
          const chunk = (choice: ChunkChoice) => ({
            ...head,
            choices: [choice],
            ...(withUsage && { usage: null }),
          });
          for (const index of seeds.keys())
            yield chunk({
              index,
              delta: { role: "assistant", content: "" },
              logprobs: null,
              finish_reason: null,
            });
          for await (const choice of deltas()) yield chunk(choice);
          if (withUsage) yield { ...head, choices: [], usage: usage.total };
        };
        return sendEvents(reply, chunks(), onDefect);
      }
      const head = answerHead("chatcmpl", "chat.completion" as const, name);
      const choices = seeds.map((_, index) => emptyChoice(index, body.logprobs ?? false));
      for await (const { index, delta, logprobs, finish_reason } of deltas()) {
        const choice = choices[index];
        choice.message.content += delta.content ?? "";
        if (logprobs) choice.logprobs?.content.push(...logprobs.content);
        if (finish_reason) choice.finish_reason = finish_reason;
      }
      return { ...head, choices, usage: usage.total };
    },
  );
}

function emptyChoice(index: number, logprobs: boolean): Choice {
  return {
    index,
    message: { role: "assistant", content: "", refusal: null },
    logprobs: logprobs ? { content: [], refusal: null } : null,
    finish_reason: "stop",
  };
}

/** Parts of text joined; "developer" is what newer clients call the system. */
function templateMessage({ role, content, refusal: _, ...rest }: RequestMessage): ChatMessage {
  const text = typeof content === "string" ? content : (content ?? []).map((part) => part.text).join("");
  return { ...rest, role: role === "developer" ? "system" : role, content: text };
}
