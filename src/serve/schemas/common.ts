/**
 * Parts of the schemas that several endpoints share. The schemas validate requests, type the handlers and are the
 * OpenAPI document. Fields that OpenAI's API does not have are refused, as it refuses them.
 */
import Type, { type Static, type TSchema } from "typebox";

/** A number or null: clients send null for "not set". */
export function nullableNumber(minimum: number, maximum: number, description: string) {
  return Type.Optional(
    Type.Unsafe<number | null>({ type: ["number", "null"], minimum, maximum, description }),
  );
}

export function nullableInteger(minimum: number, maximum: number, description: string) {
  return Type.Optional(
    Type.Unsafe<number | null>({ type: ["integer", "null"], minimum, maximum, description }),
  );
}

export function nullableBoolean(description: string) {
  return Type.Optional(Type.Unsafe<boolean | null>({ type: ["boolean", "null"], description }));
}

/** Known to OpenAI's API, of no consequence here. */
export function ignored(description: string) {
  return Type.Optional(Type.Unsafe<unknown>({ description: `${description} Accepted and ignored.` }));
}

const MAX_STOPS = 16;

/** How tokens are chosen and where text ends: the same for completions and chat. */
export const generationFields = {
  model: Type.Optional(Type.String({ description: "Id of the model; default: the one served." })),
  temperature: nullableNumber(0, 2, "0 takes the most likely token. Default 1."),
  top_p: nullableNumber(0, 1, "Draw from the most likely tokens that hold this share. Default 1."),
  frequency_penalty: nullableNumber(-2, 2, "Taken from a token's logit each time it was generated."),
  presence_penalty: nullableNumber(-2, 2, "Taken from the logit of tokens that were generated."),
  seed: nullableInteger(
    Number.MIN_SAFE_INTEGER,
    Number.MAX_SAFE_INTEGER,
    "Same seed, same request: same text. Taken modulo 2^32. Default: drawn anew.",
  ),
  stop: Type.Optional(
    Type.Union([Type.String(), Type.Array(Type.String(), { maxItems: MAX_STOPS }), Type.Null()], {
      description: `a string or up to ${MAX_STOPS} strings that end the text`,
    }),
  ),
  logit_bias: Type.Optional(
    Type.Unsafe<Record<string, number> | null>({
      type: ["object", "null"],
      propertyNames: { pattern: "^[0-9]{1,9}$" },
      additionalProperties: { type: "number", minimum: -100, maximum: 100 },
      maxProperties: 1024,
      description: "Added to the logits of token ids; -100 forbids one.",
    }),
  ),
  n: nullableInteger(1, 16, "Texts of each prompt; the prompt is computed for each. Default 1."),
  stream: nullableBoolean("Send text as server-sent events as it comes."),
  stream_options: Type.Optional(
    Type.Union(
      [
        Type.Object(
          { include_usage: nullableBoolean("Send token counts in a last event.") },
          { additionalProperties: false },
        ),
        Type.Null(),
      ],
      { description: "an object with include_usage, or null" },
    ),
  ),
  top_k: nullableInteger(0, 1_000_000, "Draw from the k most likely tokens; 0 for all. Not in OpenAI's API."),
  min_p: nullableNumber(0, 1, "Draw from tokens at least so likely beside the best. Not in OpenAI's API."),
  repetition_penalty: nullableNumber(
    0.01,
    100,
    "Above 1: makes tokens seen before less likely, the prompt's too. Not in OpenAI's API.",
  ),
  user: ignored("Who asks."),
};

const Generation = Type.Object(generationFields);
export type GenerationFields = Static<typeof Generation>;

export const Usage = Type.Object({
  prompt_tokens: Type.Integer(),
  completion_tokens: Type.Integer(),
  total_tokens: Type.Integer(),
});

export const ErrorResponse = Type.Object({
  error: Type.Object({
    message: Type.String(),
    type: Type.String(),
    param: Type.Union([Type.String(), Type.Null()]),
    code: Type.Union([Type.String(), Type.Null()]),
  }),
});

/** Which errors an endpoint answers with. */
export function errorResponses(...statuses: readonly number[]): Record<number, typeof ErrorResponse> {
  return Object.fromEntries(statuses.map((status) => [status, ErrorResponse]));
}

/** Answers of an endpoint that generates: whole, or in chunks as server-sent events. */
export function generationResponses(whole: TSchema, chunk: TSchema) {
  return {
    200: {
      description: "The answer; with stream: true, a chunk for each event, then [DONE].",
      content: { "application/json": { schema: whole }, "text/event-stream": { schema: chunk } },
    },
    ...errorResponses(400, 401, 404, 413, 415, 429, 500, 503, 504),
  };
}
