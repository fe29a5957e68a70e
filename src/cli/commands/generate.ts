/** `pocketllm generate`: completes a text, shown as it comes. */
import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { InputError } from "../../errors.js";
import type { AnswerFormat } from "../../grammar/schema.js";
import type { EndEvent } from "../../runtime/generate.js";
import { loadModel } from "../../runtime/load.js";
import { defineCommand } from "../command.js";
import { addGenerationOptions, type GenerationFlags, generationOptions } from "../generation-options.js";
import { findModel, MODEL } from "../model.js";

interface Flags extends GenerationFlags {
  readonly prompt: string;
  readonly jsonSchema?: string;
}

export function registerGenerate(program: Command): void {
  const command = program
    .command("generate")
    .description("complete a text; the speed of prompt and new tokens is printed on stderr")
    .argument("<model>", MODEL)
    .requiredOption("--prompt <text>", "the text to continue")
    .option("--json-schema <file>", "make the text JSON that fits the JSON Schema in this file");
  addGenerationOptions(command, 64);
  defineCommand<Flags>(
    command,
    'pocketllm generate ./smollm2-10x --prompt "The capital of France is" --max-tokens 24',
    async (context, [source], flags) => {
      const { threads, adapter, kvCache, context: contextLength } = flags;
      const { signal, onProgress } = context;
      const format = flags.jsonSchema === undefined ? undefined : await readFormat(flags.jsonSchema);
      const { path } = await findModel(source, context);
      const model = await loadModel(path, {
        adapter,
        threads,
        kvCache,
        joinVectors: true,
        context: contextLength,
        signal,
        onProgress,
      });
      try {
        let text = "";
        let end: EndEvent | undefined;
        for await (const event of model.generate(flags.prompt, {
          ...generationOptions(flags),
          format,
          signal,
        })) {
          text += event.text;
          context.write(event.text);
          if (event.type === "end") end = event;
        }
        context.print("");
        signal.throwIfAborted();
        if (!end) throw new Error("generation ended without its last event");
        context.log(speedLine(end));
        const { tokens, promptTokens, finishReason, prefillTokensPerSecond, decodeTokensPerSecond } = end;
        return { text, tokens, promptTokens, finishReason, prefillTokensPerSecond, decodeTokensPerSecond };
      } finally {
        await model.close();
      }
    },
  );
}

async function readFormat(path: string): Promise<AnswerFormat> {
  try {
    return { type: "schema", schema: JSON.parse(await readFile(path, "utf8")) };
  } catch (error) {
    const { message } = error as Error;
    throw new InputError(`${path}: is no JSON Schema that can be read: ${message.split("\n")[0]}`);
  }
}

function speedLine(end: EndEvent): string {
  const speed = (value: number | null) => (value === null ? "" : ` at ${value.toFixed(1)} tokens/s`);
  return (
    `prompt: ${end.promptTokens} tokens${speed(end.prefillTokensPerSecond)}; ` +
    `answer: ${end.tokens} tokens${speed(end.decodeTokensPerSecond)}`
  );
}
