/** `pocketllm tune MODEL --distill ORIGINAL --data FILE --out DIR`: recovers accuracy at the same size. */
import type { Command } from "commander";
import { tune } from "../../tune/tune.js";
import { defineCommand, duration, peakBytes, positiveInteger } from "../command.js";
import { megabytes } from "../format.js";
import { addTrainingOptions, runOptions, type TrainingOptions } from "../training-options.js";

interface Options extends TrainingOptions {
  distill: string;
  tokens?: number;
  timeBudget?: number;
}

export function registerTune(program: Command): void {
  const command = program
    .command("tune")
    .description("train a compressed model's scales, tables and norms to predict what the original predicts")
    .argument("<model>", "PocketLLM folder")
    .requiredOption("--distill <original>", "the model it was made from: what it learns from")
    .requiredOption(
      "--data <file...>",
      "text, .jsonl or .json files to learn on; never the text it is measured on",
    )
    .requiredOption("--out <dir>", "folder to make; must not exist")
    .option("--tokens <number>", "tokens to train on (default: 65536)", positiveInteger)
    .option("--time-budget <time>", "train as long as this allows instead: 90s, 45m or 2h", duration);
  addTrainingOptions(command, {
    batch: 1,
    rate: "learning rate, relative to what is trained (default: 0.005)",
  });
  const example =
    "pocketllm tune smollm2-10x --distill SmolLM2-135M.gguf --data wiki.txt c4.jsonl --out smollm2-10x-tuned";
  defineCommand<Options>(command, example, async (context, [folder], options) => {
    const { distill: original, tokens, timeBudget } = options;
    const report = await tune({ folder, original, tokens, timeBudget, ...runOptions(options, context) });
    const peak = peakBytes();
    context.print(
      `${options.out}: divergence on held-out text ${report.heldOutBefore.toFixed(4)} before, ${report.heldOutAfter.toFixed(4)} after ${report.tokens} tokens`,
    );
    context.print(
      `${megabytes(report.weightBytes)} of weights, ${report.ratio.toFixed(2)}x smaller than at 16 bits; ${Math.round(report.seconds)} s at ${report.tokensPerSecond.toFixed(0)} tokens/s, ${megabytes(peak)} of memory at most`,
    );
    return { out: options.out, ...report, peakBytes: peak };
  });
}
