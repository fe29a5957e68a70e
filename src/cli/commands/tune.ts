/** `pocketllm tune MODEL --distill ORIGINAL --data FILE --out DIR`: recovers accuracy at the same size. */
import type { Command } from "commander";
import { tune } from "../../tune/tune.js";
import { defineCommand, duration, learningRate, peakBytes, positiveInteger, seed } from "../command.js";
import { megabytes } from "../format.js";

interface Options {
  distill: string;
  data: string[];
  out: string;
  tokens?: number;
  timeBudget?: number;
  context?: number;
  batchSize?: number;
  lr?: number;
  seed: number;
  workers?: number;
  log?: string;
  resume?: boolean;
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
    .option("--time-budget <time>", "train as long as this allows instead: 90s, 45m or 2h", duration)
    .option("--context <number>", "tokens of a window (default: 256)", positiveInteger)
    .option("--batch-size <number>", "windows of a step (default: 1)", positiveInteger)
    .option("--lr <number>", "learning rate, relative to what is trained (default: 0.005)", learningRate)
    .option("--seed <number>", "seed of everything random", seed, 0)
    .option(
      "--workers <number>",
      "threads; no influence on the result (default: the cores, at most 8)",
      positiveInteger,
    )
    .option("--log <file>", "keep a log there, one JSON object a step")
    .option("--resume", "go on with an interrupted run of the same options");
  const example =
    "pocketllm tune smollm2-10x --distill SmolLM2-135M.gguf --data wiki.txt c4.jsonl --out smollm2-10x-tuned";
  defineCommand<Options>(command, example, async (context, [folder], options) => {
    const report = await tune({
      folder,
      original: options.distill,
      data: options.data,
      out: options.out,
      tokens: options.tokens,
      timeBudget: options.timeBudget,
      context: options.context,
      batch: options.batchSize,
      learningRate: options.lr,
      seed: options.seed,
      threads: options.workers,
      log: options.log,
      resume: options.resume,
      signal: context.signal,
      onProgress: context.onProgress,
    });
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
