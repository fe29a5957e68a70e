/** Options that `tune` and `train` have in common. */
import type { Command } from "commander";
import type { RunOptions } from "../training/options.js";
import { type CommandContext, positiveInteger, positiveNumber, seed } from "./command.js";

export interface TrainingOptions {
  data: string[];
  out: string;
  context?: number;
  batchSize?: number;
  lr?: number;
  seed: number;
  workers?: number;
  log?: string;
  resume?: boolean;
}

/** Adds all but --data and --out; `rate` is what --lr says of itself. */
export function addTrainingOptions(
  command: Command,
  defaults: { context: number | string; batch: number | string; rate: string },
): Command {
  return command
    .option("--context <number>", `tokens of a window (default: ${defaults.context})`, positiveInteger)
    .option("--batch-size <number>", `windows of a step (default: ${defaults.batch})`, positiveInteger)
    .option("--lr <number>", defaults.rate, positiveNumber)
    .option("--seed <number>", "seed of everything random", seed, 0)
    .option(
      "--workers <number>",
      "threads; no influence on the result (default: the cores, at most 8)",
      positiveInteger,
    )
    .option("--log <file>", "keep a log there, one JSON object a step")
    .option("--resume", "go on with an interrupted run of the same options");
}

export function runOptions(
  { data, out, context, batchSize, lr, seed, workers, log, resume }: TrainingOptions,
  { signal, onProgress }: CommandContext,
): RunOptions {
  const named = { batch: batchSize, learningRate: lr, threads: workers };
  return { data, out, context, seed, log, resume, ...named, signal, onProgress };
}
