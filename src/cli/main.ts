#!/usr/bin/env node
/** The `pocketllm` command: registers one file a command and parses the arguments. */
import { Command, CommanderError } from "commander";
import { VERSION } from "../version.js";
import { registerBench } from "./commands/bench.js";
import { registerChat } from "./commands/chat.js";
import { registerCompress } from "./commands/compress.js";
import { registerEval } from "./commands/eval.js";
import { registerGenerate } from "./commands/generate.js";
import { registerInspect } from "./commands/inspect.js";
import { registerReport } from "./commands/report.js";
import { registerServe } from "./commands/serve.js";
import { registerTrain } from "./commands/train.js";
import { registerTune } from "./commands/tune.js";
import { registerVerify } from "./commands/verify.js";

const program = new Command("pocketllm")
  .description("Makes a language model about ten times smaller than its 16-bit file, and runs it.")
  .version(VERSION)
  .showHelpAfterError("(add --help for usage)")
  .exitOverride();

for (const register of [
  registerCompress,
  registerEval,
  registerGenerate,
  registerChat,
  registerServe,
  registerTune,
  registerTrain,
  registerInspect,
  registerReport,
  registerVerify,
  registerBench,
])
  register(program);

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
