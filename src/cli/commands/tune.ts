/** `pocketllm tune MODEL --data FILE --out DIR`: recovers accuracy, in the model's own numbers or with an adapter. */
import { type Command, InvalidArgumentError } from "commander";
import type { AdapterBits } from "../../adapter/peft-config.js";
import { UsageError } from "../../errors.js";
import { tune } from "../../tune/tune.js";
import {
  defineCommand,
  duration,
  nonNegativeInteger,
  nonNegativeNumber,
  peakBytes,
  positiveInteger,
} from "../command.js";
import { megabytes } from "../format.js";
import { findModel } from "../model.js";
import { addTrainingOptions, runOptions, type TrainingOptions } from "../training-options.js";

interface Options extends Omit<TrainingOptions, "data"> {
  data?: string[];
  distill?: string;
  selfData?: number;
  loraRank?: number;
  loraAlpha?: number;
  adapterBits?: AdapterBits;
  tokens?: number;
  epochs?: number;
  timeBudget?: number;
}

export function registerTune(program: Command): void {
  const command = program
    .command("tune")
    .description(
      "train an adapter (LoRA) for a compressed model on text, or with --distill its scales, tables and norms to predict what the original predicts",
    )
    .argument("<model>", "PocketLLM folder, here or on the hub")
    .option("--distill <original>", "the model it was made from, to learn from it")
    .option("--data <file...>", "text, .jsonl or .json files to learn on; never the text it is measured on")
    .option(
      "--self-data <tokens>",
      "no text at hand: the original of --distill writes this many tokens first",
      positiveInteger,
    )
    .requiredOption("--out <dir>", "folder to make; must not exist")
    .option(
      "--lora-rank <number>",
      "rank of the adapter (default: 32; with --distill: no adapter)",
      nonNegativeInteger,
    )
    .option("--lora-alpha <number>", "its scale, times the rank (default: 64)", nonNegativeNumber)
    .option("--adapter-bits <number>", "bits of its numbers: 16, 8 or 4 (default: 16)", bits)
    .option("--tokens <number>", "with --distill: tokens to train on (default: 65536)", positiveInteger)
    .option("--epochs <number>", "without: times that each example is seen (default: 3)", positiveInteger)
    .option("--time-budget <time>", "train as long as this allows instead: 90s, 45m or 2h", duration);
  addTrainingOptions(command, {
    context: "256 for adapters, else 1024; the model's context if shorter",
    batch: "16 for adapters, else 1",
    rate: "learning rate (default: 0.0001 for adapters, else relative to what is trained: 0.005, or less above 1.6 bits a weight)",
  });
  const example =
    "pocketllm tune smollm2-10x --distill SmolLM2-135M.gguf --data wiki.txt c4.jsonl --out smollm2-10x-tuned\n" +
    "  pocketllm tune smollm2-10x --data alpaca.json --adapter-bits 4 --out smollm2-10x-alpaca";
  defineCommand<Options>(command, example, async (context, [model], options) => {
    const { distill, selfData, tokens, epochs, timeBudget, data = [] } = options;
    if (selfData === undefined && data.length === 0)
      throw new UsageError("give --data, the files to learn on (or --distill with --self-data)");
    const { path: folder } = await findModel(model, context);
    const original = distill && (await findModel(distill, context)).path;
    const report = await tune({
      ...{ folder, original, adapter: adapterOf(options), selfData, tokens, epochs, timeBudget },
      ...runOptions({ ...options, data }, context),
    });
    const peak = peakBytes();
    const { heldOutBefore, heldOutAfter, heldOutStored, adapterBytes } = report;
    const stored = heldOutStored === undefined ? "" : `, ${heldOutStored.toFixed(4)} as it is stored`;
    context.print(
      `${options.out}: ${original === undefined ? "loss" : "divergence"} on held-out text ${heldOutBefore.toFixed(4)} before, ${heldOutAfter.toFixed(4)} after ${report.tokens} tokens${stored}`,
    );
    const adapter = adapterBytes === undefined ? "" : ` (${megabytes(adapterBytes)} of them the adapter)`;
    context.print(
      `${megabytes(report.weightBytes)} of weights${adapter}, ${report.ratio.toFixed(2)}x smaller than at 16 bits; ${Math.round(report.seconds)} s at ${report.tokensPerSecond.toFixed(0)} tokens/s, ${megabytes(peak)} of memory at most`,
    );
    return { out: options.out, ...report, peakBytes: peak };
  });
}

/** With --distill an adapter is trained only when something is said of one. */
function adapterOf({ distill, loraRank: rank, loraAlpha: alpha, adapterBits: bits }: Options) {
  if (distill === undefined || rank !== undefined) return { rank, alpha, bits };
  if (alpha !== undefined || bits !== undefined)
    throw new UsageError(
      "--lora-alpha and --adapter-bits are of an adapter: give --lora-rank with --distill",
    );
  return undefined;
}

function bits(value: string): AdapterBits {
  const n = Number(value);
  if (n !== 16 && n !== 8 && n !== 4) throw new InvalidArgumentError("expected 16, 8 or 4.");
  return n;
}
