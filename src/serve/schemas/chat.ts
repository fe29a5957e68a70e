/** POST /v1/chat/completions. */
import Type, { type Static } from "typebox";
import { generationFields, ignored, nullableBoolean, nullableInteger, Usage } from "./common.js";
import { MAX_LOGPROBS } from "./completions.js";

const Content = Type.Union(
  [
    Type.String(),
    Type.Array(
      Type.Object(
        { type: Type.Literal("text"), text: Type.String() },
        {
          additionalProperties: false,
          description: "a text part: this server takes no images, audio or files",
        },
      ),
      { minItems: 1 },
    ),
    Type.Null(),
  ],
  { description: "a string or an array of text parts (this server takes no images, audio or files)" },
);

const ToolCall = Type.Object(
  {
    id: Type.Optional(Type.String()),
    type: Type.Literal("function"),
    function: Type.Object({ name: Type.String(), arguments: Type.String() }, { additionalProperties: false }),
  },
  { additionalProperties: false },
);

const Message = Type.Object(
  {
    role: Type.Unsafe<"system" | "developer" | "user" | "assistant" | "tool">({
      type: "string",
      enum: ["system", "developer", "user", "assistant", "tool"],
    }),
    content: Type.Optional(Content),
    name: Type.Optional(Type.String()),
    tool_call_id: Type.Optional(Type.String()),
    tool_calls: Type.Optional(Type.Array(ToolCall, { maxItems: 128 })),
    refusal: ignored("As in answers."),
  },
  { additionalProperties: false },
);
export type RequestMessage = Static<typeof Message>;

const Tool = Type.Object(
  {
    type: Type.Literal("function"),
    function: Type.Object(
      {
        name: Type.String(),
        description: Type.Optional(Type.String()),
        parameters: Type.Optional(Type.Unsafe<Record<string, unknown>>({ type: "object" })),
        strict: Type.Optional(Type.Unsafe<false | null>({ enum: [false, null] })),
      },
      { additionalProperties: false },
    ),
  },
  { additionalProperties: false },
);

const ResponseFormat = Type.Object(
  {
    type: Type.Unsafe<"text" | "json_object" | "json_schema">({
      enum: ["text", "json_object", "json_schema"],
    }),
    json_schema: Type.Optional(
      Type.Object(
        {
          name: Type.String({ maxLength: 64 }),
          description: Type.Optional(Type.String()),
          schema: Type.Unsafe<Record<string, unknown>>({ type: "object" }),
          strict: Type.Optional(Type.Unsafe<boolean | null>({ type: ["boolean", "null"] })),
        },
        { additionalProperties: false, description: "with type json_schema" },
      ),
    ),
  },
  {
    additionalProperties: false,
    description:
      "What the answer is: text, a JSON object, or JSON that fits a schema. An answer that ends by length is only its beginning.",
  },
);

export const ChatRequest = Type.Object(
  {
    ...generationFields,
    messages: Type.Array(Message, { minItems: 1, maxItems: 4096 }),
    max_tokens: nullableInteger(1, 2 ** 31 - 1, "Tokens to generate at most."),
    max_completion_tokens: nullableInteger(1, 2 ** 31 - 1, "The same; it has precedence."),
    logprobs: nullableBoolean("Give the log-probability of every token."),
    top_logprobs: nullableInteger(0, MAX_LOGPROBS, "And those of so many of the most likely ones."),
    tools: Type.Optional(
      Type.Array(Tool, {
        maxItems: 128,
        description: "Given to the model's chat template. What the model answers comes as text.",
      }),
    ),
    tool_choice: Type.Optional(
      Type.Unsafe<"auto" | "none">({
        enum: ["auto", "none"],
        description: "none leaves the tools out. A choice cannot be forced.",
      }),
    ),
    response_format: Type.Optional(ResponseFormat),
    parallel_tool_calls: ignored("Whether several tools may be called."),
    metadata: ignored("Notes of the caller."),
    store: ignored("Whether to keep the answer."),
    service_tier: ignored("A kind of service."),
    safety_identifier: ignored("Who asks."),
    prompt_cache_key: ignored("Which requests begin alike."),
  },
  { additionalProperties: false, title: "ChatRequest" },
);
export type ChatRequest = Static<typeof ChatRequest>;

const ChatLogprob = {
  token: Type.String(),
  logprob: Type.Number(),
  bytes: Type.Array(Type.Integer({ minimum: 0, maximum: 255 })),
};
const ScoredChatToken = Type.Object({
  ...ChatLogprob,
  top_logprobs: Type.Array(Type.Object(ChatLogprob)),
});
export type ScoredChatToken = Static<typeof ScoredChatToken>;

const ChatLogprobs = Type.Union([
  Type.Object({ content: Type.Array(ScoredChatToken), refusal: Type.Null() }),
  Type.Null(),
]);
const FinishReason = Type.Union([Type.Literal("stop"), Type.Literal("length")]);

export const ChatResponse = Type.Object({
  id: Type.String(),
  object: Type.Literal("chat.completion"),
  created: Type.Integer({ description: "Unix time in seconds." }),
  model: Type.String(),
  choices: Type.Array(
    Type.Object({
      index: Type.Integer(),
      message: Type.Object({
        role: Type.Literal("assistant"),
        content: Type.String(),
        refusal: Type.Null(),
      }),
      logprobs: ChatLogprobs,
      finish_reason: FinishReason,
    }),
  ),
  usage: Usage,
});
export type ChatResponse = Static<typeof ChatResponse>;

export const ChatChunk = Type.Object({
  id: Type.String(),
  object: Type.Literal("chat.completion.chunk"),
  created: Type.Integer(),
  model: Type.String(),
  choices: Type.Array(
    Type.Object({
      index: Type.Integer(),
      delta: Type.Object({
        role: Type.Optional(Type.Literal("assistant")),
        content: Type.Optional(Type.String()),
      }),
      logprobs: ChatLogprobs,
      finish_reason: Type.Union([FinishReason, Type.Null()]),
    }),
  ),
  usage: Type.Optional(Type.Union([Usage, Type.Null()])),
});
export type ChatChunk = Static<typeof ChatChunk>;
