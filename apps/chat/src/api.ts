/** The server's HTTP interface, as far as the page uses it. */
import type { Settings } from "./settings.js";

export interface ServedModel {
  readonly id: string;
  /** Absent where the server does not know the sizes. Bytes. */
  readonly weight_bytes?: number;
  readonly bytes_16bit?: number;
  /** Whether it holds conversations; other models go on with a text. */
  readonly chat?: boolean;
}

export interface Message {
  readonly role: "user" | "assistant";
  readonly text: string;
}

export interface Piece {
  readonly text: string;
  /** Tokens of the whole answer; with the last piece. */
  readonly tokens?: number;
}

/** What the server refused, in its words; `status` 0 when it was not reached. */
export class ApiError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export async function fetchModel(settings: Settings): Promise<ServedModel> {
  const response = await request("v1/models", settings);
  const { data } = (await response.json()) as { data: ServedModel[] };
  return data[0];
}

/** The answer as it comes. Throws ApiError, or the signal's reason. */
export async function* streamAnswer(
  model: ServedModel,
  messages: readonly Message[],
  settings: Settings,
  signal: AbortSignal,
): AsyncGenerator<Piece> {
  const common = {
    model: model.id,
    stream: true,
    stream_options: { include_usage: true },
    temperature: settings.temperature,
    top_p: settings.topP,
    max_tokens: settings.maxTokens,
  };
  const system = settings.system.trim();
  const response =
    model.chat === false
      ? await request("v1/completions", settings, {
          signal,
          body: { ...common, prompt: messages.map(({ text }) => text).join("") },
        })
      : await request("v1/chat/completions", settings, {
          signal,
          body: {
            ...common,
            messages: [
              ...(system ? [{ role: "system", content: system }] : []),
              ...messages.map(({ role, text }) => ({ role, content: text })),
            ],
          },
        });
  for await (const data of events(response)) {
    const chunk = JSON.parse(data) as Chunk;
    if (chunk.error) throw new ApiError(500, chunk.error.message);
    const [choice] = chunk.choices;
    const tokens = chunk.usage?.completion_tokens;
    yield { text: choice?.delta?.content ?? choice?.text ?? "", ...(tokens !== undefined && { tokens }) };
  }
}

interface Chunk {
  readonly choices: readonly { readonly delta?: { readonly content?: string }; readonly text?: string }[];
  readonly usage?: { readonly completion_tokens: number } | null;
  readonly error?: { readonly message: string };
}

async function request(
  path: string,
  { apiKey }: Settings,
  send?: { readonly body: object; readonly signal: AbortSignal },
): Promise<Response> {
  const headers = {
    "content-type": "application/json",
    ...(apiKey && { authorization: `Bearer ${apiKey}` }),
  };
  let response: Response;
  try {
    response = await fetch(path, {
      headers,
      ...(send && { method: "POST", body: JSON.stringify(send.body), signal: send.signal }),
    });
  } catch (error) {
    if (send?.signal.aborted) throw error;
    throw new ApiError(0, "The server cannot be reached: is it running?");
  }
  if (response.ok) return response;
  const body = (await response.json().catch(() => ({}))) as { error?: { message?: string } };
  throw new ApiError(response.status, body.error?.message ?? `The server answered ${response.status}.`);
}

/** The data of server-sent events, up to the one that says that the answer is whole. */
async function* events(response: Response): AsyncGenerator<string> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) throw new ApiError(0, "The connection ended before the answer did.");
      rest += value;
      const parts = rest.split("\n\n");
      rest = parts.pop()!;
      for (const part of parts) {
        const data = part.startsWith("data: ") ? part.slice("data: ".length) : "";
        if (data === "[DONE]") return;
        if (data) yield data;
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
