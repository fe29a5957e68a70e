/** `pocketllm train --like MODEL --data FILE --out DIR`: a small model from nothing. */
import type { Command } from "commander";
import { train } from "../../train/train.js";
import { defineCommand, peakBytes, positiveInteger } from "../command.js";
import { megabytes } from "../format.js";
import { findModel } from "../model.js";
import { addTrainingOptions, runOptions, type TrainingOptions } from "../training-options.js";

interface Options extends TrainingOptions {
  like: string;
  epochs?: number;
}

export function registerTrain(program: Command): void {
  const command = program
    .command("train")
    .description("train a small model from nothing, with another model's shape and tokenizer")
    .requiredOption("--like <model>", "model whose shape and tokenizer it gets; its weights are not used")
    .requiredOption("--data <file...>", "text, .jsonl or .json files to learn")
    .requiredOption("--out <dir>", "Hugging Face folder to make; must not exist")
    .option("--epochs <number>", "times that each text is seen (default: 10)", positiveInteger);
  addTrainingOptions(command, {
    context: 256,
    batch: 16,
    rate: "highest learning rate of AdamW (default: 0.002)",
  });
  const example = "pocketllm train --like models/pocket-stories --data tinystories.txt --out my-stories";
  defineCommand<Options>(command, example, async (context, _, options) => {
    const { epochs } = options;
    const { path: like } = await findModel(options.like, context);
    const report = await train({ like, epochs, ...runOptions(options, context) });
    const peak = peakBytes();
    context.print(
      `${options.out}: ${(report.parameters / 1e6).toFixed(2)} million parameters; held-out text ${report.heldOutBefore.toFixed(4)} nats a token before, ${report.heldOutAfter.toFixed(4)} after ${report.tokens} tokens`,
    );
    context.print(
      `${Math.round(report.seconds)} s at ${report.tokensPerSecond.toFixed(0)} tokens/s, ${megabytes(peak)} of memory at most`,
    );
    return { out: options.out, ...report, peakBytes: peak };
  });
}
