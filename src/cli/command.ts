/**
 * What every command shares: `--json`, `--verbose`, help with an example, a progress bar with ETA on a
 * terminal (plain lines otherwise), Ctrl-C as an AbortSignal, exit codes 0 / 1 / 2 and one clear error line.
 */
import { type Command, InvalidArgumentError } from "commander";
import { InputError, UsageError } from "../errors.js";
import type { OnProgress } from "../progress.js";
import { createProgress } from "./progress.js";

export interface CommandContext {
  readonly json: boolean;
  readonly signal: AbortSignal;
  readonly onProgress: OnProgress;
  /** A line for a person on stdout; nothing with `--json`, which keeps stdout for the one object. */
  print(line: string): void;
  /** The same without the line's end: text that is shown as it comes. */
  write(text: string): void;
  /** A log line: always stderr. */
  log(line: string): void;
}

/**
 * Wraps a command's work. `run` returns the object that `--json` prints; without `--json` it has already
 * printed for people through `context.print`.
 */
export function defineCommand<Options>(
  command: Command,
  example: string,
  run: (context: CommandContext, args: string[], options: Options) => Promise<Record<string, unknown>>,
): void {
  command
    .option("--json", "print one JSON object on stdout; logs and progress go to stderr")
    .option("--verbose", "print the stack trace of an error")
    .addHelpText("after", `\nExample:\n  ${example}`)
    .action(async (...all: unknown[]) => {
      const self = all.at(-1) as Command;
      const options = self.opts() as Options & { json?: boolean; verbose?: boolean };
      const json = options.json ?? false;
      const abort = new AbortController();
      const onSignal = () => {
        if (abort.signal.aborted) process.exit(130);
        process.stderr.write("\nstopping (what is finished is kept; Ctrl-C again to quit at once)\n");
        abort.abort(new InputError("interrupted"));
      };
      process.on("SIGINT", onSignal);
      process.on("SIGTERM", onSignal);
      const progress = createProgress();
      const writer = (stream: NodeJS.WriteStream, end: string) => (text: string) => {
        progress.pause();
        stream.write(text + end);
      };
      const show = (end: string) => (json ? () => {} : writer(process.stdout, end));
      const context: CommandContext = {
        json,
        signal: abort.signal,
        onProgress: progress.update,
        print: show("\n"),
        write: show(""),
        log: writer(process.stderr, "\n"),
      };
      try {
        const result = await run(context, self.args, options);
        progress.stop();
        if (json) process.stdout.write(`${JSON.stringify(result)}\n`);
        process.exitCode = 0;
      } catch (error) {
        progress.stop();
        process.exitCode = reportError(error, options.verbose ?? false);
      } finally {
        process.off("SIGINT", onSignal);
        process.off("SIGTERM", onSignal);
      }
    });
}

/** Prints one line for an error and returns the exit code. */
export function reportError(error: unknown, verbose: boolean): number {
  const e = error instanceof Error ? error : new Error(String(error));
  const system = "code" in e && typeof e.code === "string" ? SYSTEM_ERRORS[e.code] : undefined;
  const known = e instanceof InputError || system !== undefined;
  const text = (system ? `${system} (${e.message})` : e.message).replaceAll("\n", " ");
  process.stderr.write(`pocketllm: ${known ? "" : "internal error: "}${text}\n`);
  if (verbose && e.stack) process.stderr.write(`${e.stack}\n`);
  else if (!known) process.stderr.write("pocketllm: run again with --verbose for the stack trace\n");
  return e instanceof UsageError ? 2 : 1;
}

const SYSTEM_ERRORS: Readonly<Record<string, string>> = {
  ENOSPC: "the disk is full: free some space and run again with --resume",
  EACCES: "permission denied",
  EPERM: "permission denied",
  EROFS: "the file system is read-only",
  EMFILE: "too many open files",
  EADDRINUSE: "another program listens there already: give another --port",
  EADDRNOTAVAIL: "this machine does not have that address: give another --host",
  ENOENT: "no such file or folder",
  ENOTDIR: "not a folder",
  EISDIR: "is a folder, a file was expected",
};

/** Option parsers: a bad value is a usage error (exit code 2) that names the option. */
export function positiveInteger(value: string): number {
  const n = Number(value);
  if (!Number.isSafeInteger(n) || n < 1)
    throw new InvalidArgumentError("expected a whole number of at least 1.");
  return n;
}

const SECONDS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600 };

/** Seconds. */
export function duration(value: string): number {
  const match = /^(\d+(?:\.\d+)?)([smh])$/.exec(value);
  if (!match || Number(match[1]) === 0) throw new InvalidArgumentError("expected a time such as 45m.");
  return Number(match[1]) * SECONDS[match[2]];
}

export function positiveNumber(value: string): number {
  const n = Number(value);
  if (value.trim() === "" || !Number.isFinite(n) || n <= 0)
    throw new InvalidArgumentError("expected a number above 0.");
  return n;
}

export function nonNegativeInteger(value: string): number {
  const n = Number(value);
  if (!Number.isSafeInteger(n) || n < 0)
    throw new InvalidArgumentError("expected a whole number of at least 0.");
  return n;
}

export function seed(value: string): number {
  const n = nonNegativeInteger(value);
  if (n >= 2 ** 32) throw new InvalidArgumentError("expected a whole number below 2^32.");
  return n;
}

/** Most memory that the process has held so far. */
export function peakBytes(): number {
  return 1024 * process.resourceUsage().maxRSS;
}

export function nonNegativeNumber(value: string): number {
  const n = Number(value);
  if (value.trim() === "" || !Number.isFinite(n) || n < 0)
    throw new InvalidArgumentError("expected a number of at least 0.");
  return n;
}

/** `--adapter` of commands that run a model. */
export const ADAPTER_OPTION = ["--adapter <dir>", "a LoRA adapter in PEFT's form to use on top"] as const;

/** For options that may be given several times, or several values after one flag. */
export function collect(value: string, previous: string[] | undefined): string[] {
  return [...(previous ?? []), value];
}
