/**
 * The loop of `pocketllm chat`: a line is a question, the answer is shown as it comes. Works on a terminal
 * (with line editing) and on piped input (one question a line, no prompt).
 */
import { createInterface } from "node:readline";
import { InputError } from "../errors.js";
import type { ChatSession } from "../runtime/chat.js";

export interface ConversationStreams {
  readonly input: NodeJS.ReadableStream;
  /** Where a terminal echoes what is typed; null when the input is not a terminal. */
  readonly terminal: NodeJS.WritableStream | null;
  write(text: string): void;
  log(line: string): void;
  /** Ends the conversation, the current answer included. */
  readonly signal: AbortSignal;
}

const HELP = "/reset forgets the conversation, /system TEXT sets the system message, /quit ends";

/**
 * Runs until the input ends, /quit, or an interrupt while nothing is being answered; an interrupt during an
 * answer ends that answer. On a terminal a question that cannot be answered (the context is full) is
 * reported and the conversation goes on; otherwise its InputError is thrown.
 */
export async function converse(chat: ChatSession, streams: ConversationStreams): Promise<void> {
  const { input, terminal, write, log, signal } = streams;
  const lines = createInterface({
    input,
    ...(terminal ? { output: terminal } : {}),
    terminal: terminal !== null,
    prompt: terminal ? "> " : "",
  });
  let answering: AbortController | null = null;
  let ended = false;
  const quit = () => {
    ended = true;
    answering?.abort();
    lines.close();
  };
  const interrupt = () => {
    if (answering && !answering.signal.aborted) answering.abort();
    else quit();
  };
  // A terminal in raw mode hands Ctrl-C to readline; elsewhere it arrives as a signal of the process.
  lines.on("SIGINT", interrupt);
  signal.addEventListener("abort", quit);
  try {
    if (terminal) lines.prompt();
    for await (const line of lines) {
      const text = line.trim();
      // Lines that were typed ahead are still in the queue after the end.
      if (text === "/quit" || ended) break;
      if (text.startsWith("/")) {
        obey(chat, text, log);
      } else if (text !== "") {
        answering = new AbortController();
        try {
          for await (const event of chat.send(text, { signal: answering.signal })) write(event.text);
          write("\n");
        } catch (error) {
          if (!terminal || !(error instanceof InputError)) throw error;
          log(error.message);
        }
        answering = null;
      }
      if (terminal && !ended) lines.prompt();
    }
  } finally {
    signal.removeEventListener("abort", quit);
    lines.close();
  }
}

function obey(chat: ChatSession, command: string, log: (line: string) => void): void {
  const [name] = command.split(/\s/, 1);
  const rest = command.slice(name.length).trim();
  if (name === "/reset" && rest === "") chat.reset();
  else if (name === "/system") chat.setSystem(rest === "" ? null : rest);
  else log(HELP);
}
