/**
 * Conversations as text: a model's own Jinja template turned into a function of the messages.
 */
export interface ChatMessage {
  readonly role: "system" | "user" | "assistant" | (string & {});
  readonly content: string;
}
