/** `pocketllm chat`: a conversation on the terminal, or over a pipe. */
import type { Command } from "commander";
import { ChatSession } from "../../runtime/chat.js";
import { loadModel } from "../../runtime/load.js";
import { defineCommand } from "../command.js";
import { converse } from "../conversation.js";
import { addGenerationOptions, type GenerationFlags, generationOptions } from "../generation-options.js";
import { findModel, MODEL } from "../model.js";

/** Context where none is given: the KV cache of a conversation is allocated at once (47 MB for SmolLM2-135M). */
const DEFAULT_CONTEXT = 2048;

interface Flags extends GenerationFlags {
  readonly system?: string;
}

export function registerChat(program: Command): void {
  const command = program
    .command("chat")
    .description(
      "hold a conversation: a line is a question. /reset forgets it, /system TEXT sets the system message, " +
        "/quit ends; Ctrl-C stops an answer, a second one ends",
    )
    .argument("<model>", MODEL)
    .option("--system <text>", "the system message (default: the chat template's own)");
  addGenerationOptions(command, 512);
  defineCommand<Flags>(
    command,
    'echo "What is two plus two?" | pocketllm chat ./smollm2-10x --temperature 0.7 --top-p 0.95',
    async (context, [source], flags) => {
      const { threads, adapter, kvCache, system } = flags;
      const { signal, onProgress } = context;
      const { path } = await findModel(source, context);
      const model = await loadModel(path, {
        adapter,
        threads,
        kvCache,
        joinVectors: true,
        context: flags.context,
        signal,
        onProgress,
      });
      try {
        const contextLength = flags.context ?? Math.min(model.contextLength, DEFAULT_CONTEXT);
        const chat = new ChatSession(model, { ...generationOptions(flags), contextLength, system });
        const onTerminal = process.stdin.isTTY && process.stdout.isTTY && !context.json;
        const terminal = onTerminal ? process.stdout : null;
        const { write, log } = context;
        await converse(chat, { input: process.stdin, terminal, write, log, signal });
        signal.throwIfAborted();
        return { messages: chat.messages };
      } finally {
        await model.close();
      }
    },
  );
}
