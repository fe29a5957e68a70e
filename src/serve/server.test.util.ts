/** A server over models/pocket-stories for tests, and OpenAI's own client for it. */
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import OpenAI from "openai";
import type { LoadModelOptions } from "../runtime/assemble.js";
import { loadModel } from "../runtime/load.js";
import type { LoadedModel } from "../runtime/loaded-model.js";
import type { ServedModel } from "./engine/scheduler.js";
import { createServer, type Server, type ServerOptions } from "./server.js";

export const STORIES = fileURLToPath(new URL("../../models/pocket-stories", import.meta.url));

/** Shows tools, then roles and texts; `{#` keeps the story going. */
const TEMPLATE =
  "{{ bos_token }}{% if tools %}{{ tools | tojson }}\n{% endif %}" +
  "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" +
  "{% if add_generation_prompt %}Once upon a time{% endif %}";

/** Copies the story model and gives it a chat template. */
export async function copyStories(folder: string): Promise<void> {
  await cp(STORIES, folder, { recursive: true });
  const path = join(folder, "tokenizer_config.json");
  const config = JSON.parse(await readFile(path, "utf8")) as object;
  await writeFile(path, JSON.stringify({ ...config, chat_template: TEMPLATE }));
}

/** The story model with a chat template. */
export async function loadStories(options: LoadModelOptions = {}): Promise<LoadedModel> {
  const folder = await mkdtemp(join(tmpdir(), "pocketllm-serve-"));
  try {
    await copyStories(folder);
    return await loadModel(folder, { threads: 1, ...options });
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** The model, but every step of decoding takes `milliseconds` longer. */
export function slowed(model: ServedModel, milliseconds: number): ServedModel {
  return {
    config: model.config,
    tokenizer: model.tokenizer,
    contextLength: model.contextLength,
    createBatch(options) {
      const batch = model.createBatch(options);
      return {
        sequences: batch.sequences,
        createSession: (capacity, exact) => batch.createSession(capacity, exact),
        async forward(sessions, ids) {
          await sleep(milliseconds);
          return await batch.forward(sessions, ids);
        },
        free: () => batch.free(),
      };
    },
  };
}

const open = new Set<Server>();

/** Those that a failed test has left open: they would keep the process alive. */
export async function closeServers(): Promise<void> {
  for (const server of open) await server.close(0);
}

export interface RunningServer extends Server {
  readonly url: string;
  readonly client: OpenAI;
  /** What went wrong inside; tests end with this empty. */
  readonly defects: unknown[];
  state(): Promise<{ running: number; waiting: number }>;
}

export async function startServer(
  model: ServedModel,
  options: Partial<ServerOptions> = {},
): Promise<RunningServer> {
  const defects: unknown[] = [];
  const server = await createServer({
    model,
    name: "stories",
    onDefect: (error) => defects.push(error),
    ...options,
  });
  const url = await server.listen("127.0.0.1", 0);
  open.add(server);
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: options.apiKey ?? "none", maxRetries: 0 });
  return {
    ...server,
    async close(grace) {
      open.delete(server);
      await server.close(grace);
    },
    url,
    client,
    defects,
    state: async () => (await (await fetch(`${url}/health`)).json()) as { running: number; waiting: number },
  };
}

/** POSTs anything; strings and blobs of bytes as they are. */
export async function post(url: string, body: unknown, headers: Record<string, string> = {}) {
  const response = await fetch(url, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: typeof body === "string" || body instanceof Blob ? body : JSON.stringify(body),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, text, json: tryJson(text) };
}

// biome-ignore lint/suspicious/noExplicitAny: answers are looked into freely
function tryJson(text: string): any {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Waits until `condition` holds; fails the test by its own time limit otherwise. */
export async function until(condition: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await condition())) await sleep(5);
}
