/**
 * Requests to the hub. Every answer is bounded and every failure is one line that says what to do. The token goes
 * to the hub alone: `fetch` takes it off when a file's address leads elsewhere.
 */
import { setTimeout as delay } from "node:timers/promises";
import { CorruptFileError, InputError } from "../errors.js";
import { TOOL, VERSION } from "../version.js";
import { formatId, type RepositoryId } from "./id.js";
import type { HubSettings } from "./settings.js";

/** The hub cannot be asked now; what is in the cache can be used. */
export class HubUnreachableError extends InputError {
  override name = "HubUnreachableError";
}

/** The repository has no such revision, or no such folder at it. */
export class NotOnHubError extends InputError {
  override name = "NotOnHubError";
}

/** Several times the largest answers: a page of a listing has 1,000 files, some 300 bytes each. */
const MAX_ANSWER_BYTES = 8 * 2 ** 20;
/** Without a byte for so long the connection counts as broken. */
const IDLE_MS = 60_000;
/** Pauses before the tries after the first. */
const PAUSES_MS = [300, 1500];

export interface Asking {
  readonly settings: HubSettings;
  readonly id: RepositoryId;
  readonly signal?: AbortSignal | undefined;
}

/** A `fetch` for the library's calls: bounded whole answers, errors of ours. */
export function apiFetch(asking: Asking): typeof fetch {
  return async (input, init) => {
    const response = await request(
      asking,
      String(input instanceof Request ? input.url : input),
      init?.headers,
    );
    const bytes = await wholeBody(asking, response);
    return new Response(bytes, { status: response.status, headers: response.headers });
  };
}

/**
 * One answer of the hub with a body to read; what passes by itself (429, 5xx, broken connections) is tried three
 * times. The signal ends the body, too.
 */
export async function request(
  asking: Asking,
  url: string,
  headers: RequestInit["headers"] = {},
): Promise<Response> {
  const { settings, signal } = asking;
  // A listing names its next page itself: it must not name another server, which would be sent the token.
  if (!URL.canParse(url) || new URL(url).origin !== new URL(settings.endpoint).origin)
    throw new CorruptFileError(`${formatId(asking.id)}: the hub's answer leads to another server`);
  const all = new Headers(headers);
  all.set("user-agent", `${TOOL}/${VERSION}`);
  if (settings.token !== null) all.set("authorization", `Bearer ${settings.token}`);
  for (let tries = 0; ; tries++) {
    const last = tries >= PAUSES_MS.length;
    // Until the headers are here; `pieces` watches over the body.
    const silent = new AbortController();
    const timer = setTimeout(() => silent.abort(new Error("no answer for a minute")), IDLE_MS);
    try {
      const both = signal ? AbortSignal.any([signal, silent.signal]) : silent.signal;
      const response = await fetch(url, { headers: all, signal: both });
      if (response.ok) return response;
      const failure = failureOf(asking, response);
      await response.body?.cancel().catch(() => {});
      if (last || !isPassing(response.status)) throw failure;
    } catch (error) {
      signal?.throwIfAborted();
      if (error instanceof InputError) throw error;
      if (last || !isBroken(error)) throw unreachable(asking, error);
    } finally {
      clearTimeout(timer);
    }
    await delay(PAUSES_MS[tries], undefined, { signal }).catch(() => signal?.throwIfAborted());
  }
}

/** The pieces of a body; InputError as `unreachable` when the connection breaks or falls silent. */
export async function* pieces(asking: Asking, response: Response): AsyncGenerator<Uint8Array> {
  if (!response.body) return;
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { value, done } = await withinIdle(reader, asking);
      if (done) return;
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

async function withinIdle(reader: ReadableStreamDefaultReader<Uint8Array>, asking: Asking) {
  let timer: NodeJS.Timeout | undefined;
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("no byte for a minute")), IDLE_MS);
  });
  try {
    return await Promise.race([reader.read(), silence]);
  } catch (error) {
    asking.signal?.throwIfAborted();
    throw unreachable(asking, error);
  } finally {
    clearTimeout(timer);
  }
}

async function wholeBody(asking: Asking, response: Response): Promise<Uint8Array<ArrayBuffer>> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const piece of pieces(asking, response)) {
    length += piece.length;
    if (length > MAX_ANSWER_BYTES)
      throw new CorruptFileError(
        `${formatId(asking.id)}: an answer of the hub has more than ${MAX_ANSWER_BYTES} bytes`,
      );
    parts.push(piece);
  }
  return new Uint8Array(Buffer.concat(parts));
}

function isPassing(status: number): boolean {
  return status === 429 || status >= 500;
}

/** The cause that `fetch` gives; an unknown name or a refused connection does not pass by itself. */
function isBroken(error: unknown): boolean {
  return /^(ECONNRESET|EPIPE|UND_ERR_SOCKET|EAI_AGAIN)$/.test(causeOf(error));
}

function causeOf(error: unknown): string {
  const cause = error instanceof Error ? (error.cause ?? error) : error;
  return cause instanceof Error && "code" in cause ? String(cause.code) : "";
}

function unreachable({ id, settings }: Asking, error: unknown): InputError {
  const code = causeOf(error);
  return new HubUnreachableError(
    `${formatId(id)}: is no file or folder here, and ${settings.endpoint} cannot be reached${code ? ` (${code})` : ""}: no network? A local folder or file works without`,
    { cause: error },
  );
}

function failureOf({ id, settings }: Asking, response: Response): InputError {
  const name = formatId(id);
  const what = id.type === "model" ? "model" : "data set";
  const reason = response.headers.get("x-error-code") ?? "";
  const { status } = response;
  if (status === 401 || status === 403) {
    const page = `${settings.endpoint}/${id.type === "model" ? "" : "datasets/"}${id.name}`;
    if (reason === "GatedRepo")
      return new InputError(
        `${name}: is gated (HTTP ${status}): ask for access at ${page}, then set HF_TOKEN to a token of that account`,
      );
    return new InputError(
      settings.token === null
        ? `${name}: is private or does not exist (HTTP ${status}): check the name, or set HF_TOKEN to a token that may read it`
        : `${name}: is private or does not exist (HTTP ${status}): the token of HF_TOKEN may not read it`,
    );
  }
  if (status === 404) {
    if (reason === "RevisionNotFound")
      return new NotOnHubError(`${name}: the ${what} has no revision ${id.revision}`);
    if (reason === "EntryNotFound") return new NotOnHubError(`${name}: the ${what} has no such file`);
    return new NotOnHubError(
      `${name}: no such file or folder here, and no such ${what} on the hub (HTTP 404): check the name`,
    );
  }
  if (status === 429)
    return new HubUnreachableError(`${name}: the hub is asked too often (HTTP 429): wait, or set HF_TOKEN`);
  if (status >= 500)
    return new HubUnreachableError(
      `${name}: the hub fails (HTTP ${status}): try again later; a local folder or file works without`,
    );
  return new InputError(`${name}: the hub answered HTTP ${status}`);
}
