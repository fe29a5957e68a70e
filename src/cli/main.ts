#!/usr/bin/env node
/** The `pocketllm` command: registers one file a command and parses the arguments. */
import { Command, CommanderError } from "commander";
import { VERSION } from "../version.js";

/** In the order of the help. Each brings what it needs itself: all together take half a second and 30 MB. */
const COMMANDS: Readonly<Record<string, () => Promise<(program: Command) => void>>> = {
  compress: async () => (await import("./commands/compress.js")).registerCompress,
  eval: async () => (await import("./commands/eval.js")).registerEval,
  generate: async () => (await import("./commands/generate.js")).registerGenerate,
  chat: async () => (await import("./commands/chat.js")).registerChat,
  serve: async () => (await import("./commands/serve.js")).registerServe,
  tune: async () => (await import("./commands/tune.js")).registerTune,
  train: async () => (await import("./commands/train.js")).registerTrain,
  inspect: async () => (await import("./commands/inspect.js")).registerInspect,
  report: async () => (await import("./commands/report.js")).registerReport,
  verify: async () => (await import("./commands/verify.js")).registerVerify,
  bench: async () => (await import("./commands/bench.js")).registerBench,
};

const program = new Command("pocketllm")
  .description("Makes a language model about ten times smaller than its 16-bit file, and runs it.")
  .version(VERSION)
  .showHelpAfterError("(add --help for usage)")
  .exitOverride();

const [first = ""] = process.argv.slice(2);
const needed = Object.hasOwn(COMMANDS, first)
  ? [first]
  : first === "--version" || first === "-V"
    ? []
    : Object.keys(COMMANDS);
for (const name of needed) (await COMMANDS[name]())(program);

// `pocketllm generate … | head` closes the pipe early: that is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(0);
});

try {
  await program.parseAsync();
} catch (error) {
  // Commander has already printed its line; its own errors are all usage errors.
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? 0 : 2;
}
