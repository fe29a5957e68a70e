/** POST /v1/completions. */
import Type, { type Static } from "typebox";
import { generationFields, nullableBoolean, nullableInteger, Usage } from "./common.js";

/** Prompts in one request; times `n` they must fit the queue too. */
export const MAX_PROMPTS = 128;
/** Most alternatives whose log-probabilities are given, as in OpenAI's chat. */
export const MAX_LOGPROBS = 20;

const TokenIds = Type.Array(Type.Integer({ minimum: 0, maximum: 2 ** 31 - 1 }), { minItems: 1 });

export const CompletionRequest = Type.Object(
  {
    ...generationFields,
    prompt: Type.Union(
      [
        Type.String(),
        Type.Array(Type.String(), { minItems: 1, maxItems: MAX_PROMPTS }),
        TokenIds,
        Type.Array(TokenIds, { minItems: 1, maxItems: MAX_PROMPTS }),
      ],
      {
        description: `a string, an array of token ids, or an array of up to ${MAX_PROMPTS} of either`,
      },
    ),
    max_tokens: nullableInteger(0, 2 ** 31 - 1, "Tokens to generate at most; 0 for none. Default 16."),
    logprobs: nullableInteger(
      0,
      MAX_LOGPROBS,
      "Give log-probabilities of the tokens, and of so many of the most likely ones at each place.",
    ),
    echo: nullableBoolean("Put the prompt before the text, its log-probabilities too."),
    best_of: nullableInteger(1, 1, "Only 1."),
    suffix: Type.Optional(Type.Unsafe<null | "">({ enum: [null, ""], description: "Not supported." })),
  },
  { additionalProperties: false, title: "CompletionRequest" },
);
export type CompletionRequest = Static<typeof CompletionRequest>;

const Logprobs = Type.Object({
  tokens: Type.Array(Type.String()),
  token_logprobs: Type.Array(Type.Union([Type.Number(), Type.Null()])),
  top_logprobs: Type.Union([
    Type.Array(Type.Union([Type.Record(Type.String(), Type.Number()), Type.Null()])),
    Type.Null(),
  ]),
  text_offset: Type.Array(Type.Integer()),
});
export type CompletionLogprobs = Static<typeof Logprobs>;

export const CompletionResponse = Type.Object({
  id: Type.String(),
  object: Type.Literal("text_completion"),
  created: Type.Integer({ description: "Unix time in seconds." }),
  model: Type.String(),
  choices: Type.Array(
    Type.Object({
      text: Type.String(),
      index: Type.Integer(),
      logprobs: Type.Union([Logprobs, Type.Null()]),
      finish_reason: Type.Union([Type.Literal("stop"), Type.Literal("length"), Type.Null()]),
    }),
  ),
  usage: Type.Optional(Type.Union([Usage, Type.Null()])),
});
export type CompletionResponse = Static<typeof CompletionResponse>;
