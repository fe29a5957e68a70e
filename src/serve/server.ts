/** The HTTP server: limits, keys, errors, and the endpoints of routes/ over one engine. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Socket } from "node:net";
import cors from "@fastify/cors";
import swagger from "@fastify/swagger";
import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import { fastify } from "fastify";
import { UsageError } from "../errors.js";
import { VERSION } from "../version.js";
import { type App, type ModelBytes, RunningRequests, type ServeContext } from "./context.js";
import { Scheduler, type ServedModel } from "./engine/scheduler.js";
import { ApiError, toApiError } from "./errors.js";
import { parseJsonBody } from "./json-body.js";
import { ServerMetrics } from "./metrics.js";
import { addChat } from "./routes/chat.js";
import { addChatPage, readChatPage } from "./routes/chat-page.js";
import { addCompletions } from "./routes/completions.js";
import { addStatus } from "./routes/status.js";
import { addTokenizer } from "./routes/tokenizer.js";

export interface ServerOptions {
  /** Stays open when the server closes. */
  readonly model: ServedModel;
  /** The model's id in requests and answers. */
  readonly name: string;
  /** What the model's weights take, for /v1/models and the chat page. Default: not said. */
  readonly size?: ModelBytes | undefined;
  /** Asked of every request as `Authorization: Bearer KEY`, /health and the chat page's files apart. Default: none. */
  readonly apiKey?: string | undefined;
  /** The one origin whose pages may call the server. Default: none. */
  readonly cors?: string | undefined;
  /** Sequences that run together. Default 32. */
  readonly parallel?: number | undefined;
  /** Sequences that wait; more are refused with 429. Default 128. */
  readonly queue?: number | undefined;
  /** Seconds from a request's arrival to the end of its answer. Default 600. */
  readonly timeout?: number | undefined;
  /** Seconds in which the whole request must arrive. Default 30. */
  readonly receiveTimeout?: number | undefined;
  /** Bytes of a request's body. Default 4 MiB. */
  readonly bodyLimit?: number | undefined;
  /** Told of errors that are our own. Default: ignored. */
  readonly onDefect?: ((error: unknown) => void) | undefined;
}

export interface Server {
  /** Without listening, for tests: `app.inject`. */
  readonly app: App;
  /** Returns the address. The system's errors (EADDRINUSE) as they come. */
  listen(host: string, port: number): Promise<string>;
  /** Takes nothing new; answers what runs, for at most `grace` seconds (default 10); drops what waits. */
  close(grace?: number): Promise<void>;
}

/** Connections at a time; the system refuses more. */
const MAX_CONNECTIONS = 1024;

/** UsageError for an option out of range, InputError when memory does not suffice for the batch. */
export async function createServer(options: ServerOptions): Promise<Server> {
  const { model, name, parallel = 32, queue = 128, timeout = 600, receiveTimeout = 30 } = options;
  const { bodyLimit = 4 * 2 ** 20, onDefect = () => {} } = options;
  if (options.apiKey === "") throw new UsageError("the API key is empty");
  const metrics = new ServerMetrics();
  const app: App = fastify({
    bodyLimit,
    requestTimeout: 1000 * receiveTimeout,
    keepAliveTimeout: 5000,
    forceCloseConnections: "idle",
    http: { headersTimeout: 1000 * Math.min(10, receiveTimeout), connectionsCheckingInterval: 1000 },
    ajv: {
      customOptions: { coerceTypes: false, removeAdditional: false, useDefaults: false, verbose: true },
    },
    clientErrorHandler: answerBadRequest,
    frameworkErrors: (error, _, reply) => {
      const { status, body } = toApiError(error, onDefect);
      // The type of this handler's reply knows no answers.
      (reply as { code(status: number): { send(body: unknown): void } }).code(status).send(body);
    },
  }).withTypeProvider<TypeBoxTypeProvider>();
  const scheduler = new Scheduler({ model, sequences: parallel, queue, observer: metrics });
  metrics.watch(scheduler);
  const requests = new RunningRequests(timeout);
  const created = Math.floor(Date.now() / 1000);
  const { size } = options;
  const context: ServeContext = { model, name, size, created, scheduler, requests, onDefect };
  const page = await readChatPage();

  app.server.maxConnections = MAX_CONNECTIONS;
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "buffer" }, async (_: unknown, body: Buffer) =>
    parseJsonBody(body),
  );
  // Schemas of answers are documentation, checked by the tests: the answers are written as they are.
  app.setSerializerCompiler(() => (data) => JSON.stringify(data));
  app.setErrorHandler((error, _, reply) => {
    const { status, body, retryAfter } = toApiError(error, onDefect);
    if (retryAfter !== undefined) reply.header("retry-after", retryAfter);
    return reply.code(status).send(body);
  });
  app.setNotFoundHandler((request, reply) => {
    const { method, url } = request;
    const path = url.split("?", 1)[0];
    const allowed = (["GET", "POST"] as const).filter(
      (other) => other !== method && app.findRoute({ method: other, url: path }) !== null,
    );
    if (allowed.length === 0)
      throw new ApiError(404, `Unknown request URL: ${method} ${path}.`, { code: "unknown_url" });
    reply.header("allow", allowed.join(", "));
    throw new ApiError(405, `${path} does not take ${method}.`, { code: "method_not_allowed" });
  });
  app.addHook("onResponse", async (request, reply) => {
    metrics.request(request.routeOptions.url ?? "unknown", reply.statusCode);
  });
  if (options.cors !== undefined) await app.register(cors, { origin: options.cors });
  if (options.apiKey !== undefined)
    requireKey(app, options.apiKey, new Set(["/health", ...page.map(({ path }) => path)]));
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "PocketLLM",
        version: VERSION,
        description: "A language model behind the HTTP interface of OpenAI's.",
      },
      ...(options.apiKey !== undefined && {
        components: { securitySchemes: { key: { type: "http", scheme: "bearer" } } },
        security: [{ key: [] }],
      }),
    },
  });
  addStatus(app, context, metrics);
  addTokenizer(app, context);
  addCompletions(app, context);
  addChat(app, context);
  addChatPage(app, page);
  app.get("/openapi.json", { schema: { hide: true } }, async () => app.swagger());
  await app.ready();

  return {
    app,
    listen: (host, port) => app.listen({ host, port }),
    async close(grace = 10) {
      const timer = setTimeout(() => requests.abortAll(), 1000 * grace);
      // Connections that become idle from now on would stay for their keep-alive time.
      const sweep = setInterval(() => app.server.closeIdleConnections(), 50);
      await Promise.all([scheduler.stop(), app.close()]);
      clearInterval(sweep);
      clearTimeout(timer);
      scheduler.free();
    },
  };
}

/** Compares hashes: neither the key's characters nor its length show in the time that it takes. */
function requireKey(app: App, key: string, open: ReadonlySet<string>): void {
  const hash = (text: string) => createHash("sha256").update(text).digest();
  const wanted = hash(key);
  app.addHook("onRequest", async (request, reply) => {
    if (open.has(request.routeOptions.url ?? "") || request.method === "OPTIONS") return;
    const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? "")?.[1];
    if (given !== undefined && timingSafeEqual(hash(given), wanted)) return;
    reply.header("www-authenticate", "Bearer");
    throw new ApiError(
      401,
      given === undefined
        ? "No API key was given: send the header Authorization: Bearer KEY."
        : "The API key is wrong.",
      { code: "invalid_api_key" },
    );
  });
}

/** What is not HTTP, or came too slowly: answered on the socket itself. */
function answerBadRequest(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy();
  const [status, message] =
    error.code === "ERR_HTTP_REQUEST_TIMEOUT"
      ? (["408 Request Timeout", "The request came too slowly."] as const)
      : error.code === "HPE_HEADER_OVERFLOW"
        ? (["431 Request Header Fields Too Large", "The request's headers are too large."] as const)
        : (["400 Bad Request", "The request is not valid HTTP."] as const);
  const body = JSON.stringify(new ApiError(Number(status.slice(0, 3)), message).body);
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n` +
      `Connection: close\r\n\r\n${body}`,
  );
}
