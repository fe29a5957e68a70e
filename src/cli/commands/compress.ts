/** `pocketllm compress MODEL --out DIR`: a checkpoint becomes a PocketLLM folder. */
import { type Command, Option } from "commander";
import {
  type CompressOptions,
  compress,
  dryRun,
  type Method,
  PARTS,
  type Part,
  parseBits,
  parseTarget,
} from "../../compress/index.js";
import { UsageError } from "../../errors.js";
import { compressBest } from "../../recipe/best.js";
import { dryRunBest } from "../../recipe/best-dry-run.js";
import { compressToDivergence } from "../../recipe/divergence.js";
import type { Try } from "../../recipe/secant.js";
import {
  type CommandContext,
  defineCommand,
  duration,
  peakBytes,
  positiveInteger,
  positiveNumber,
  seed,
} from "../command.js";
import { megabytes } from "../format.js";
import { findModel } from "../model.js";
import { planLines } from "../plan-table.js";

interface Options {
  out?: string;
  adapter?: string;
  without?: Part[];
  target?: string;
  bits?: string;
  divergence?: number;
  method: Method;
  calibration?: string[];
  calibrationTokens?: number;
  dataFree?: boolean;
  recipe?: "fast" | "balanced" | "best";
  timeBudget?: number;
  seed: number;
  workers?: number;
  resume?: boolean;
  dryRun?: boolean;
}

export function registerCompress(program: Command): void {
  const command = program
    .command("compress")
    .description("compress a model into a PocketLLM folder")
    .argument(
      "<model>",
      "Hugging Face folder, .gguf file, llama2.c .bin file, or org/name[@revision] on the hub",
    )
    .option("--out <dir>", "folder to make; must not exist")
    .option("--target <ratio>", "size wanted, as a ratio to the 16-bit file (default: 10x)")
    .option("--bits <number>", "size wanted, as mean bits a weight; instead of --target")
    .option(
      "--divergence <nats>",
      "quality wanted instead of a size: largest mean KL divergence on calibration text held out; compresses several times",
      positiveNumber,
    )
    .addOption(
      new Option("--method <name>", "trellis, or meta (the paper's networks)")
        .choices(["trellis", "meta"])
        .default("trellis"),
    )
    .option("--calibration <file...>", "text, .jsonl or .json files that the model is compressed for")
    .option(
      "--calibration-tokens <number>",
      "tokens of them to use at most (default: 49152, fewer for wide models)",
      positiveInteger,
    )
    .option("--data-free", "compress without calibration text: faster, and much worse below 4 bits")
    .addOption(
      new Option(
        "--recipe <name>",
        "fast: without data; balanced: for calibration text; best: and trained on it (default: balanced with text, else fast)",
      ).choices(["fast", "balanced", "best"]),
    )
    .option(
      "--time-budget <time>",
      "of the training of --recipe best: 90s, 45m or 2h (default: 1h)",
      duration,
    )
    .option("--adapter <dir>", "a LoRA adapter in PEFT's form to merge into the weights first")
    .addOption(
      new Option("--without <part...>", "leave parts of the method out, to see what each is worth").choices(
        PARTS,
      ),
    )
    .option("--seed <number>", "seed of everything random", seed, 0)
    .option(
      "--workers <number>",
      "threads (default: the cores, at most 8); no influence on the result",
      positiveInteger,
    )
    .option("--resume", "go on with an interrupted run of the same model and options")
    .option("--dry-run", "print the plan, its exact size and a forecast of time and memory; write nothing");
  const example =
    "pocketllm compress SmolLM2-135M.gguf --out smollm2-10x --target 10x --calibration wiki.txt c4.jsonl";
  defineCommand<Options>(command, example, async (context, [model], options) => {
    const wanted = [options.target, options.bits, options.divergence].filter((x) => x !== undefined);
    if (wanted.length > 1) throw new UsageError("give one of --target, --bits and --divergence");
    checkRecipe(options);
    const { method, recipe } = options;
    if (!options.calibration && !options.dataFree && recipe === undefined && method === "trellis")
      context.log(
        "no --calibration text given: compressing without data, which costs much quality below 4 bits",
      );
    const { path: source } = await findModel(model, context);
    const common = {
      source,
      adapter: options.adapter,
      without: options.without,
      target: options.bits !== undefined ? parseBits(options.bits) : parseTarget(options.target ?? "10x"),
      method: options.method,
      calibration: options.calibration,
      calibrationTokens: options.calibrationTokens,
      seed: options.seed,
      threads: options.workers,
      signal: context.signal,
      onProgress: context.onProgress,
    };
    if (options.dryRun) {
      const { calibration = [], timeBudget } = options;
      const report =
        recipe === "best" ? await dryRunBest({ ...common, calibration, timeBudget }) : await dryRun(common);
      for (const line of planLines(report.plan)) context.print(line);
      context.print(
        `${report.weightBytes} bytes of weights, ${report.ratio.toFixed(3)}x smaller than ${megabytes(report.bytes16)} at 16 bits`,
      );
      if (report.forecast) {
        const minutes = Math.ceil(report.forecast.seconds / 60);
        const memory = megabytes(report.forecast.memoryBytes);
        context.print(`about ${minutes} minute${minutes === 1 ? "" : "s"} and ${memory} of memory`);
      }
      return { ...report };
    }
    const { out, resume } = options;
    if (out === undefined) throw new UsageError("give --out, the folder to make (or --dry-run)");
    if (options.divergence !== undefined)
      return await toDivergence(context, { ...common, out, resume }, options.divergence);
    if (recipe === "best") {
      const { calibration = [] } = options;
      const best = { ...common, out, resume, calibration, timeBudget: options.timeBudget };
      const { weightBytes, ratio, compressed, absorbed, tuned } = await compressBest(best);
      context.print(
        `${out}: ${megabytes(weightBytes)} of weights, ${ratio.toFixed(2)}x smaller than at 16 bits`,
      );
      if (absorbed)
        context.print(
          `divergence on held-out text with nothing but the embedding coded ${absorbed.heldOutBefore.toFixed(4)} before, ${absorbed.heldOutAfter.toFixed(4)} after ${absorbed.tokens} tokens of training the layers`,
        );
      context.print(
        tuned
          ? `divergence on held-out text ${tuned.heldOutBefore.toFixed(4)} before, ${tuned.heldOutAfter.toFixed(4)} after ${tuned.tokens} tokens of tuning`
          : "tuning did not bring the divergence on held-out text down: this is the compressed model, not tuned",
      );
      return {
        out,
        weightBytes,
        ratio,
        compressed: compressed && { ...compressed },
        absorbed: absorbed && { ...absorbed },
        tuned: tuned && { ...tuned },
        peakBytes: peakBytes(),
      };
    }
    const report = await compress({ ...common, out, resume });
    const peak = peakBytes();
    context.print(
      `${out}: ${megabytes(report.weightBytes)} of weights, ${report.ratio.toFixed(2)}x smaller than ${megabytes(report.bytes16)} at 16 bits`,
    );
    context.print(
      `${report.bitsPerWeight.toFixed(3)} bits a weight; ${Math.round(report.seconds)} s, ${megabytes(peak)} of memory at most`,
    );
    if (report.divergence !== null)
      context.print(
        `divergence from the original on calibration text held out: ${report.divergence.toFixed(4)} nats a token`,
      );
    return { out, ...report, peakBytes: peak };
  });
}

async function toDivergence(
  context: CommandContext,
  { target: _, method: __, calibration = [], ...common }: CompressOptions,
  divergence: number,
) {
  const onTry = (made: Try) =>
    context.log(`${made.bits.toFixed(3)} bits a weight: divergence ${made.divergence.toFixed(4)}`);
  const report = await compressToDivergence({ ...common, calibration, divergence, onTry });
  context.print(
    `${common.out}: divergence ${report.divergence.toFixed(4)} on held-out text with ${megabytes(report.weightBytes)} of weights, ${report.ratio.toFixed(2)}x smaller than at 16 bits`,
  );
  return { out: common.out, ...report, peakBytes: peakBytes() };
}

/** A recipe is a word for what other options say: the two must not differ. */
function checkRecipe(options: Options): void {
  const { recipe, adapter, calibration, dataFree, method, timeBudget, dryRun, divergence } = options;
  if (adapter !== undefined && (recipe === "best" || divergence !== undefined))
    throw new UsageError(
      "--recipe best and --divergence compare with the model without the adapter: give --recipe balanced and a --target with --adapter",
    );
  if (divergence !== undefined && (!calibration || method !== "trellis" || recipe === "best" || dryRun))
    throw new UsageError(
      "--divergence is for --method trellis with --calibration text, without --recipe best or --dry-run",
    );
  if (calibration && (dataFree || recipe === "fast"))
    throw new UsageError("give either --calibration, or --data-free (--recipe fast), not both");
  if (!calibration && (recipe === "balanced" || recipe === "best"))
    throw new UsageError(`--recipe ${recipe} needs text to work with: give --calibration`);
  if (dataFree && recipe !== undefined && recipe !== "fast")
    throw new UsageError(`--recipe ${recipe} works with text, --data-free without: give one of them`);
  if (recipe === "best" && method !== "trellis")
    throw new UsageError(`--recipe best tunes what --method trellis makes, not ${method}`);
  if (timeBudget !== undefined && recipe !== "best")
    throw new UsageError("--time-budget is of the training of --recipe best");
}
