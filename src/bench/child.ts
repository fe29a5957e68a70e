/**
 * A contestant in a process of its own: its memory and its computing are its own, and it loads as a fresh program
 * does. The process answers each message with one (`answerParent`).
 */
import { type ChildProcess, fork } from "node:child_process";
import { CorruptFileError, InputError, UsageError } from "../errors.js";
import type { Contestant, Run, Task } from "./contestant.js";

type Answer =
  | { readonly result: unknown }
  | { readonly error: { name: string; message: string; code?: string } };

const ERRORS: Readonly<Record<string, new (message: string) => Error>> = {
  InputError,
  UsageError,
  CorruptFileError,
};

export class Child implements Contestant {
  readonly #process: ChildProcess;
  #ended: Error | undefined;

  /** Starts the module at `path`; what it prints goes to stderr. */
  constructor(path: string, args: readonly string[], signal?: AbortSignal) {
    this.#process = fork(path, args, { stdio: ["ignore", 2, 2, "ipc"], ...(signal && { signal }) });
    this.#process.on("error", (error) => {
      this.#ended ??= signal?.aborted ? signal.reason : error;
    });
    this.#process.on("exit", (code, by) => {
      this.#ended ??= new Error(`${path} ended with ${by ?? code}`);
    });
  }

  /** The answer to `message`. Rejects with the error that it answers with, or when the process has ended. */
  ask<T>(message: unknown): Promise<T> {
    return new Promise((resolve, reject) => {
      const child = this.#process;
      const end = () => {
        child.off("message", onMessage);
        // "exit" and "error" have set the reason: their first listeners are the constructor's.
        reject(this.#ended);
      };
      const onMessage = (answer: Answer) => {
        child.off("exit", end).off("error", end).off("message", onMessage);
        if ("result" in answer) return resolve(answer.result as T);
        const { name, message: text, code } = answer.error;
        reject(Object.assign(new (ERRORS[name] ?? Error)(text), code && { code }));
      };
      if (this.#ended) return reject(this.#ended);
      child.on("message", onMessage).on("exit", end).on("error", end);
      child.send(message as object, (error) => error && reject(this.#ended ?? error));
    });
  }

  run(task: Task): Promise<Run> {
    return this.ask<Run>({ task });
  }

  /** Ends the process; resolves when it is gone. */
  async close(): Promise<void> {
    const child = this.#process;
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
    await new Promise((gone) => {
      child.once("exit", gone);
      child.kill();
    });
  }
}

/** The process's side: answers each message with what `answer` gives or throws. Messages must not overlap. */
export function answerParent(answer: (message: unknown) => unknown): void {
  const send = (reply: Answer) => process.send?.(reply);
  process.on("message", async (message) => {
    try {
      send({ result: await answer(message) });
    } catch (error) {
      const {
        name,
        message: text,
        code,
      }: NodeJS.ErrnoException = error instanceof Error ? error : new Error(String(error));
      send({ error: { name, message: text, ...(code !== undefined && { code }) } });
    }
  });
}

/** A run timed in this process: the threads' computing is the whole process's. */
export async function timed(tokens: number, work: () => Promise<unknown>): Promise<Run> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  await work();
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  return { tokens, seconds, cpuSeconds: (user + system) / 1e6 };
}
