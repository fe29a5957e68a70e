/** `pocketllm serve`: a model behind OpenAI's HTTP interface. */
import { basename, resolve } from "node:path";
import { type Command, InvalidArgumentError } from "commander";
import { inspectModel } from "../../container/inspect.js";
import { loadModel } from "../../runtime/load.js";
import { createServer } from "../../serve/server.js";
import { defineCommand, nonNegativeInteger, positiveInteger } from "../command.js";
import { findModel, MODEL } from "../model.js";

interface Flags {
  readonly host: string;
  readonly port: number;
  readonly apiKey?: string;
  readonly cors?: string;
  readonly name?: string;
  readonly parallel: number;
  readonly queue: number;
  readonly timeout: number;
  readonly context?: number;
  readonly threads?: number;
}

export function registerServe(program: Command): void {
  const command = program
    .command("serve")
    .description(
      "serve a model over HTTP, with a chat page at /, as OpenAI's API does: /v1/chat/completions, /v1/completions, /v1/models, and " +
        "/health, /metrics, /openapi.json. Ctrl-C answers what runs, then ends",
    )
    .argument("<model>", MODEL)
    .option("--host <address>", "0.0.0.0 is reachable from other machines: give a key", "127.0.0.1")
    .option("--port <n>", "0 takes a free one", port, 8080)
    .option("--api-key <key>", "asked of every request (default: $POCKETLLM_API_KEY, or none)")
    .option("--cors <origin>", "origin whose web pages may call the server (default: none)")
    .option(
      "--name <id>",
      "the model's id in requests (default: the name of its folder or file, or on the hub)",
    )
    .option("--parallel <n>", "sequences that run together", positiveInteger, 32)
    .option("--queue <n>", "sequences that wait; more are refused with 429", nonNegativeInteger, 128)
    .option("--timeout <seconds>", "from a request's arrival to the end of its answer", positiveInteger, 600)
    .option("--context <n>", "longest sequence in tokens (default: the model's)", positiveInteger)
    .option("--threads <n>", "threads to compute with (default: the cores)", positiveInteger);
  defineCommand<Flags>(
    command,
    "pocketllm serve ./smollm2-10x --port 8080 --api-key secret",
    async (context, [source], flags) => {
      const { host, cors, parallel, queue, timeout, threads } = flags;
      const { signal, onProgress } = context;
      const { path, commit } = await findModel(source, context);
      const model = await loadModel(path, {
        threads,
        context: flags.context,
        joinVectors: true,
        signal,
        onProgress,
      });
      try {
        const size = await inspectModel(path);
        const server = await createServer({
          model,
          name: flags.name ?? (commit === undefined ? basename(resolve(source)) : source),
          size,
          apiKey: flags.apiKey ?? process.env["POCKETLLM_API_KEY"],
          cors,
          parallel,
          queue,
          timeout,
          onDefect: (error) =>
            context.log(`internal error: ${error instanceof Error ? error.stack : String(error)}`),
        });
        const address = await server.listen(host, flags.port);
        context.log(`listening on ${address}`);
        await new Promise<void>((done) => {
          if (signal.aborted) done();
          signal.addEventListener("abort", () => done(), { once: true });
        });
        await server.close();
        return { address };
      } finally {
        await model.close();
      }
    },
  );
}

function port(value: string): number {
  const n = nonNegativeInteger(value);
  if (n > 65535) throw new InvalidArgumentError("expected a port from 0 to 65535.");
  return n;
}
