/** `pocketllm eval`: perplexity of a model on a text, and its divergence from a reference model. */
import type { Command } from "commander";
import { type Evaluation, evaluate } from "../../evaluate/evaluate.js";
import { loadModel } from "../../runtime/load.js";
import { readCorpus } from "../../text/corpus.js";
import { type CommandContext, defineCommand, positiveInteger } from "../command.js";

interface EvalOptions {
  readonly text: string;
  readonly context?: number;
  readonly windows?: number;
  readonly reference?: string;
  readonly threads?: number;
}

export function registerEval(program: Command): void {
  const command = program
    .command("eval")
    .description("measure a model on a text: perplexity, and divergence from a reference model")
    .argument("<model>", "Hugging Face folder, .gguf file, llama2.c .bin file or PocketLLM folder")
    .requiredOption("--text <file>", "text to measure on: plain UTF-8, or .jsonl with a text field")
    .option(
      "--context <tokens>",
      "tokens of a window (default: 1024, or the model's context if shorter)",
      positiveInteger,
    )
    .option("--windows <count>", "windows to measure (default: all of the text)", positiveInteger)
    .option("--reference <model>", "the uncompressed model to compare with, measured the same way")
    .option("--threads <count>", "worker threads (default: one a core)", positiveInteger);
  defineCommand<EvalOptions>(
    command,
    "pocketllm eval smollm2-10x --text wiki.test.txt --windows 16 --reference SmolLM2-135M.gguf",
    async (context, [source], options) => {
      const { signal, onProgress } = context;
      const text = (await readCorpus(options.text)).join("\n\n");
      const load = (name: string) => loadModel(name, { threads: options.threads, signal, onProgress });
      const model = await load(source);
      try {
        const reference = options.reference === undefined ? undefined : await load(options.reference);
        try {
          const { context: tokens, windows } = options;
          const result = await evaluate({
            model,
            reference,
            text,
            context: tokens,
            windows,
            signal,
            onProgress,
          });
          printTable(context, source, options, result);
          return { ...result };
        } finally {
          await reference?.close();
        }
      } finally {
        await model.close();
      }
    },
  );
}

function printTable(context: CommandContext, source: string, options: EvalOptions, result: Evaluation): void {
  const rows: [string, string][] = [
    ["model", source],
    ["text", options.text],
    ["context", `${result.context} tokens`],
    ["windows", String(result.windows)],
    ["tokens scored", String(result.tokensScored)],
    ["perplexity", result.perplexity.toFixed(4)],
  ];
  const { referencePerplexity, divergence, sameTop } = result;
  if (referencePerplexity !== undefined && divergence && sameTop !== undefined)
    rows.push(
      ["reference", options.reference ?? ""],
      ["reference perplexity", referencePerplexity.toFixed(4)],
      ["divergence, mean", `${divergence.mean.toFixed(5)} nats`],
      ["divergence, median", `${divergence.median.toFixed(5)} nats`],
      ["divergence, 99th percentile", `${divergence.p99.toFixed(5)} nats`],
      ["same top token", `${(100 * sameTop).toFixed(2)} %`],
    );
  else rows.push(["reference", "none (--reference MODEL measures a baseline the same way)"]);
  rows.push(["time", `${result.seconds.toFixed(1)} s`]);
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, value] of rows) context.print(`${name.padEnd(width)}  ${value}`);
}
