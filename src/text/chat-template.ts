/**
 * Conversations as text: a model's own Jinja template turned into a function of the messages.
 */
import { Template } from "@huggingface/jinja";
import { InputError } from "../errors.js";

export interface ChatMessage {
  readonly role: "system" | "user" | "assistant" | (string & {});
  readonly content: string;
  /** What else a template may look at: `tool_calls`, `tool_call_id`, `name`. */
  readonly [field: string]: unknown;
}

export interface ChatTemplateOptions {
  /** End with the beginning of an answer. Default true. */
  readonly addGenerationPrompt?: boolean;
  /** Descriptions of tools, as OpenAI's API has them, for templates that know the variable `tools`. */
  readonly tools?: readonly unknown[] | undefined;
}

/** Said by whatever needs a conversation from a model that was not made for one. */
export const NO_CHAT_TEMPLATE =
  "the model has no chat template: it completes text (pocketllm generate) and cannot hold a conversation";

/** What templates may refer to besides the messages. */
export interface ChatTemplateTokens {
  readonly bosToken: string | null;
  readonly eosToken: string | null;
}

/**
 * The template in a tokenizer_config.json: a string, or a list of named ones of which "default" is for
 * conversations. Null where there is none.
 */
export function findChatTemplate(config: Readonly<Record<string, unknown>>): string | null {
  const value = config["chat_template"];
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return null;
  for (const entry of value as unknown[]) {
    const { name, template } = (entry ?? {}) as { name?: unknown; template?: unknown };
    if (name === "default" && typeof template === "string") return template;
  }
  return null;
}

/**
 * Renders the conversation. Templates refuse what their model was not made for (a system message, two
 * questions in a row): that, like a template that cannot be parsed, is an InputError.
 */
export function renderChatTemplate(
  template: string,
  messages: readonly ChatMessage[],
  tokens: ChatTemplateTokens,
  { addGenerationPrompt = true, tools }: ChatTemplateOptions = {},
): string {
  try {
    return new Template(template).render({
      messages: messages.map((message) => ({ ...message })),
      add_generation_prompt: addGenerationPrompt,
      ...(tools && { tools }),
      bos_token: tokens.bosToken ?? "",
      eos_token: tokens.eosToken ?? "",
    });
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new InputError(`the model's chat template refuses this conversation: ${reason}`);
  }
}
