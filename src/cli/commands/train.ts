/** `pocketllm train --like MODEL --data FILE --out DIR`: a small model from nothing. */
import type { Command } from "commander";
import { train } from "../../train/train.js";
import { defineCommand, learningRate, peakBytes, positiveInteger, seed } from "../command.js";
import { megabytes } from "../format.js";

interface Options {
  like: string;
  data: string[];
  out: string;
  epochs?: number;
  context?: number;
  batchSize?: number;
  lr?: number;
  seed: number;
  workers?: number;
  log?: string;
  resume?: boolean;
}

export function registerTrain(program: Command): void {
  const command = program
    .command("train")
    .description("train a small model from nothing, with another model's shape and tokenizer")
    .requiredOption("--like <model>", "model whose shape and tokenizer it gets; its weights are not used")
    .requiredOption("--data <file...>", "text, .jsonl or .json files to learn")
    .requiredOption("--out <dir>", "Hugging Face folder to make; must not exist")
    .option("--epochs <number>", "times that each text is seen (default: 10)", positiveInteger)
    .option("--context <number>", "tokens of a window (default: 256)", positiveInteger)
    .option("--batch-size <number>", "windows of a step (default: 16)", positiveInteger)
    .option("--lr <number>", "highest learning rate of AdamW (default: 0.002)", learningRate)
    .option("--seed <number>", "seed of everything random", seed, 0)
    .option(
      "--workers <number>",
      "threads; no influence on the result (default: the cores, at most 8)",
      positiveInteger,
    )
    .option("--log <file>", "keep a log there, one JSON object a step")
    .option("--resume", "go on with an interrupted run of the same options");
  const example = "pocketllm train --like models/pocket-stories --data tinystories.txt --out my-stories";
  defineCommand<Options>(command, example, async (context, _, options) => {
    const { batchSize: batch, lr, workers: threads, ...rest } = options;
    const { signal, onProgress } = context;
    const report = await train({ ...rest, batch, learningRate: lr, threads, signal, onProgress });
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
