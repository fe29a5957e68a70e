/** From the fields of a request to sequences for the engine: what completions and chat share. */
import { randomInt } from "node:crypto";
import { InputError } from "../errors.js";
import type { Constraint } from "../grammar/constraint.js";
import type { AnswerFormat } from "../grammar/schema.js";
import type { SamplingOptions } from "../runtime/sampling.js";
import type { ServedModel } from "./engine/scheduler.js";
import { ApiError, unsupported } from "./errors.js";
import type { ChatRequest } from "./schemas/chat.js";
import type { GenerationFields } from "./schemas/common.js";

/** Tokens of an answer where the request names no number: its KV cache is allocated at once. */
const DEFAULT_ANSWER = 1024;

export function samplingOf(fields: GenerationFields): SamplingOptions {
  const bias = Object.entries(fields.logit_bias ?? {});
  if (fields.top_p === 0) throw unsupported("top_p", "top_p must be above 0: use temperature 0 instead.");
  return {
    temperature: fields.temperature ?? 1,
    topP: fields.top_p ?? 1,
    topK: fields.top_k ?? 0,
    minP: fields.min_p ?? 0,
    repetitionPenalty: fields.repetition_penalty ?? 1,
    frequencyPenalty: fields.frequency_penalty ?? 0,
    presencePenalty: fields.presence_penalty ?? 0,
    // As in OpenAI's API -100 forbids a token and 100 makes it the only one, nearly.
    logitBias: new Map(
      bias.map(([id, value]) => [Number(id), value === -100 ? Number.NEGATIVE_INFINITY : value]),
    ),
  };
}

/** One for each of the texts asked for; they differ by their seeds. */
export function seedsOf({ seed, n }: GenerationFields): number[] {
  const first =
    seed === undefined || seed === null ? randomInt(2 ** 32) : ((seed % 2 ** 32) + 2 ** 32) % 2 ** 32;
  return Array.from({ length: n ?? 1 }, (_, i) => (first + i) % 2 ** 32);
}

export function stopsOf({ stop }: GenerationFields): readonly string[] {
  return typeof stop === "string" ? [stop] : (stop ?? []);
}

/** What an answer must be; undefined for any text. ApiError 400 where the parts do not fit each other. */
export function formatOf({
  response_format,
}: Pick<ChatRequest, "response_format">): AnswerFormat | undefined {
  if (!response_format || response_format.type === "text") return undefined;
  const { type, json_schema } = response_format;
  if (type === "json_object") return { type: "json" };
  const param = "response_format.json_schema";
  if (!json_schema)
    throw new ApiError(400, `Missing required parameter: '${param}'.`, {
      param,
      code: "missing_required_parameter",
    });
  return { type: "schema", schema: json_schema.schema, strict: json_schema.strict ?? true };
}

/** A grammar for each of `count` answers. ApiError 400 for a schema that cannot be enforced. */
export async function constraintsOf(
  { createConstraint }: Pick<ServedModel, "createConstraint">,
  format: AnswerFormat | undefined,
  count: number,
): Promise<(Constraint | undefined)[]> {
  const constraints: (Constraint | undefined)[] = [];
  try {
    for (let i = 0; i < count; i++) {
      if (format && !createConstraint)
        throw unsupported("response_format", "This server cannot hold answers to a format.");
      constraints.push(format && (await createConstraint?.(format)));
    }
    return constraints;
  } catch (error) {
    for (const constraint of constraints) constraint?.free();
    if (!(error instanceof InputError)) throw error;
    throw new ApiError(400, error.message, {
      param: "response_format.json_schema.schema",
      code: "invalid_value",
    });
  }
}

/** ApiError 404 for another model than the one served. */
export function checkModel(wanted: string | undefined, served: string): void {
  if (wanted === undefined || wanted === served) return;
  throw new ApiError(404, `The model '${wanted}' does not exist: this server has '${served}'.`, {
    param: "model",
    code: "model_not_found",
  });
}

/** How many tokens may be generated. ApiError 400 for a prompt that is empty or does not fit with them. */
export function roomFor(
  { config, contextLength }: Pick<ServedModel, "config" | "contextLength">,
  ids: readonly number[],
  maxTokens: number | null | undefined,
  param: string,
): number {
  if (ids.length === 0) throw new ApiError(400, "The prompt is empty: give at least one token.", { param });
  const outside = ids.find((id) => id >= config.vocabularySize);
  if (outside !== undefined)
    throw new ApiError(400, `Token id ${outside} is not in the vocabulary of ${config.vocabularySize}.`, {
      param,
      code: "invalid_value",
    });
  const room = contextLength - ids.length;
  const wanted = maxTokens ?? Math.min(room, DEFAULT_ANSWER);
  if (wanted > room || (wanted < 1 && maxTokens !== 0))
    throw new ApiError(
      400,
      `This model's context is ${contextLength} tokens; the prompt has ${ids.length}, and ` +
        `${maxTokens ?? "at least 1"} for the answer ${maxTokens === 1 ? "does" : "do"} not fit.`,
      { param, code: "context_length_exceeded" },
    );
  return wanted;
}
