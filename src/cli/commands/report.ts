/** `pocketllm report`: compressed models with their measurements as one page, and as model cards. */
import { type Command, InvalidArgumentError, Option } from "commander";
import { UsageError } from "../../errors.js";
import { PROTOCOLS, type Protocol } from "../../evaluate/protocol.js";
import { runReport } from "../../report/run.js";
import { defineCommand, positiveInteger } from "../command.js";

interface ReportFlags {
  readonly out: string;
  readonly evaluation?: string[];
  readonly bench?: string[];
  readonly reference?: string;
  readonly text?: string;
  readonly protocol?: Protocol;
  readonly context?: number;
  readonly windows?: number;
  readonly tasks?: string[];
  readonly limit?: number;
  readonly card?: true;
  readonly force?: true;
  readonly baseModel?: string;
  readonly license?: string;
  readonly threads?: number;
}

export function registerReport(program: Command): void {
  const command = program
    .command("report")
    .description(
      "write one HTML file about compressed models: sizes, bits, distortion, quality, tasks, speed, how they were made",
    )
    .argument("<folders...>", "PocketLLM folders")
    .option("--out <file>", "the page", "report.html")
    .option("--evaluation <files...>", "results of eval --out, of the folders or of their originals")
    .option("--bench <files...>", "results of bench --json, of the folders")
    .option("--reference <model>", "the original: measure the folders against it now, on --text")
    .option("--text <file>", "text to measure the folders on now, as for eval")
    .addOption(new Option("--protocol <name>", "as for eval").choices(PROTOCOLS))
    .option("--context <tokens>", "as for eval", positiveInteger)
    .option("--windows <count>", "as for eval", positiveInteger)
    .option("--tasks <tasks...>", "tasks to measure the folders on now, as for eval")
    .option("--limit <count>", "as for eval", positiveInteger)
    .option("--card", "write a model card, README.md, into each folder")
    .option("--base-model <id>", "for the card: the original's id on the hub", baseModel)
    .option("--license <id>", "for the card: the hub's id of the licence, such as apache-2.0", license)
    .option("--force", "write a card over a README.md that is there")
    .option("--threads <count>", "worker threads (default: one a core)", positiveInteger);
  defineCommand<ReportFlags>(
    command,
    "pocketllm report smollm2-10x smollm2-8x --evaluation 10x.json 8x.json --out report.html\n" +
      "  pocketllm report smollm2-10x --reference SmolLM2-135M.gguf --text wiki.test.txt --windows 16 --card",
    async (context, folders, flags) => {
      const { signal, onProgress, log: onNote } = context;
      const { out, threads, evaluation: evaluations, bench: speeds } = flags;
      const written = await runReport({
        ...{ folders, evaluations, speeds, out, threads, signal, onProgress, onNote },
        measure: measurementOf(flags),
        card: cardOf(flags),
      });
      context.print(`${written.out}: ${folders.length === 1 ? folders[0] : `${folders.length} models`}`);
      for (const card of written.cards) context.print(`model card: ${card}`);
      return { ...written };
    },
  );
}

/** What belongs to a measurement goes to `eval`'s own checks. */
function measurementOf({ reference, text, protocol, context, windows, tasks, limit }: ReportFlags) {
  const measurement = { reference, text, protocol, context, windows, tasks, limit };
  const given = Object.values(measurement).some((value) => value !== undefined);
  if (given && text === undefined && tasks === undefined)
    throw new UsageError("nothing to measure with these options: give --text, --tasks or both");
  return given ? measurement : undefined;
}

function cardOf({ card, force, baseModel, license }: ReportFlags) {
  if (card) return { baseModel, license, overwrite: force ?? false };
  for (const [name, value] of Object.entries({ force, "base-model": baseModel, license }))
    if (value !== undefined) throw new UsageError(`--${name} has no meaning without --card`);
  return undefined;
}

function baseModel(value: string): string {
  if (!/^[\w.-]{1,96}\/[\w.-]{1,96}$/.test(value)) throw new InvalidArgumentError("expected org/name.");
  return value;
}

function license(value: string): string {
  if (!/^[a-z0-9][a-z0-9.-]{0,63}$/.test(value))
    throw new InvalidArgumentError("expected an id such as mit.");
  return value;
}
