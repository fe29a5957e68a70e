#!/usr/bin/env node
/** The `pocketllm` command: registers one file a command and parses the arguments. */
import { Command, CommanderError } from "commander";

const program = new Command("pocketllm")
  .description("Makes a language model about ten times smaller than its 16-bit file, and runs it.")
  .version("0.1.0")
  .showHelpAfterError("(add --help for usage)")
  .exitOverride();

try {
  await program.parseAsync();
} catch (error) {
  // Commander has already printed its line; its own errors are all usage errors.
  if (!(error instanceof CommanderError)) throw error;
  process.exitCode = error.exitCode === 0 ? 0 : 2;
}
