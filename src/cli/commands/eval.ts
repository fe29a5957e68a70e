/** `pocketllm eval`: perplexity of a model on a text, its divergence from a reference model, task accuracy. */
import { type Command, Option } from "commander";
import { PROTOCOLS, type Protocol } from "../../evaluate/protocol.js";
import { type EvaluationReport, runEvaluation } from "../../evaluate/run.js";
import type { TaskResult } from "../../evaluate/tasks.js";
import type { CacheFormat } from "../../transformer/kv-cache.js";
import { ADAPTER_OPTION, type CommandContext, defineCommand, positiveInteger } from "../command.js";
import { kvCacheOption } from "../generation-options.js";
import { MODEL } from "../model.js";

interface EvalOptions {
  readonly text?: string;
  readonly protocol?: Protocol;
  readonly context?: number;
  readonly windows?: number;
  readonly reference?: string;
  readonly tasks?: string[];
  readonly limit?: number;
  readonly bos?: true;
  readonly out?: string;
  readonly journal?: string;
  readonly threads?: number;
  readonly adapter?: string;
  readonly kvCache?: CacheFormat;
}

export function registerEval(program: Command): void {
  const command = program
    .command("eval")
    .description("measure a model: perplexity, divergence from a reference model, task accuracy")
    .argument("<model>", MODEL)
    .option("--text <file>", "text to measure on: plain UTF-8, .jsonl or .json with a text field")
    .addOption(
      new Option(
        "--protocol <name>",
        "how the text is cut and scored: all but a window's first token (default), gptq (the same, 2048 tokens), " +
          "llamacpp (second half of each window), word (documents apart, a white-space word)",
      ).choices(PROTOCOLS),
    )
    .option(
      "--context <tokens>",
      "tokens of a window (default: 1024, word and gptq 2048, or the model's context if shorter)",
      positiveInteger,
    )
    .option(
      "--windows <count>",
      "windows to measure, documents under word (default: all of the text)",
      positiveInteger,
    )
    .option("--reference <model>", "the uncompressed model to compare with, measured the same way")
    .option(
      "--tasks <task...>",
      "task files (.jsonl with context, choices and gold, or context and target), benchmarks of the hub (arc_easy) or their data sets (org/name[:config][@revision])",
    )
    .option("--limit <count>", "questions of each task (default: all)", positiveInteger)
    .option("--bos", "begin every question with BOS where the tokenizer adds it, as lm-eval's hf model does")
    .option("--out <file>", "write the result there as JSON, too")
    .option(
      "--journal <folder>",
      "where unfinished work is kept, to go on from (default: beside --out; without it none is kept)",
    )
    .option(...ADAPTER_OPTION)
    .option("--threads <count>", "worker threads (default: one a core)", positiveInteger)
    .addOption(kvCacheOption());
  defineCommand<EvalOptions>(
    command,
    "pocketllm eval smollm2-10x --text wiki.test.txt --windows 16 --reference SmolLM2-135M.gguf --out result.json\n" +
      "  pocketllm eval smollm2-10x --tasks arc_easy lambada_openai my-task.jsonl --limit 200",
    async (context, [model], options) => {
      const { signal, onProgress, log: onNote } = context;
      const report = await runEvaluation({ ...options, model, signal, onProgress, onNote });
      printTable(context, options, report);
      return { ...report };
    },
  );
}

function printTable(context: CommandContext, options: EvalOptions, report: EvaluationReport): void {
  const { model } = report;
  const hash = "manifestSha256" in model ? model.manifestSha256 : model.sha256;
  const rows: [string, string][] = [
    ["model", model.path],
    ["hash", `${hash.slice(0, 16)}… (${model.format === "pocketllm" ? "manifest" : "weights"})`],
    ...adapterRow(report),
    ...textRows(options, report),
    ...Object.entries(report.tasks ?? {}).map(([name, result]): [string, string] => [name, taskLine(result)]),
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, value] of rows) context.print(`${name.padEnd(width)}  ${value}`);
}

function adapterRow({ adapter }: EvaluationReport): [string, string][] {
  return adapter ? [["adapter", `${adapter.path}, hash ${adapter.sha256.slice(0, 16)}…`]] : [];
}

function textRows(options: EvalOptions, report: EvaluationReport): [string, string][] {
  const { perplexity, perplexityStderr, tokensScored, context, windows, seconds } = report;
  if (perplexity === undefined || seconds === undefined) return [];
  const perWord = report.words !== undefined;
  const rows: [string, string][] = [
    ["text", options.text ?? ""],
    ["protocol", `${report.protocol}: ${report.protocolDescription}`],
    ["context", `${context} tokens`],
    [perWord ? "documents" : "windows", String(windows)],
    ["tokens scored", String(tokensScored)],
    [perWord ? "word perplexity" : "perplexity", withError(perplexity, perplexityStderr, 4)],
  ];
  const { tokenPerplexity, bytePerplexity, bitsPerByte } = report;
  if (tokenPerplexity !== undefined && bytePerplexity !== undefined && bitsPerByte !== undefined)
    rows.push(
      ["words", String(report.words)],
      ["token perplexity", tokenPerplexity.toFixed(4)],
      ["byte perplexity", `${bytePerplexity.toFixed(4)} (${bitsPerByte.toFixed(4)} bits)`],
    );
  const { referencePerplexity, divergence, deltaP, sameTop } = report;
  if (referencePerplexity !== undefined && divergence && deltaP && sameTop !== undefined)
    rows.push(
      ["reference", options.reference ?? ""],
      ["reference perplexity", referencePerplexity.toFixed(4)],
      ["divergence, mean", `${withError(divergence.mean, divergence.stderr, 5)} nats`],
      ["divergence, median", `${divergence.median.toFixed(5)} nats`],
      ["divergence, 90th percentile", `${divergence.p90.toFixed(5)} nats`],
      ["divergence, 99th percentile", `${divergence.p99.toFixed(5)} nats`],
      ["same top token", `${(100 * sameTop).toFixed(2)} %`],
      ["Δp of the true token, mean", `${percent(deltaP.mean, deltaP.stderr)}`],
      ["Δp, root mean square", percent(deltaP.rms)],
    );
  else rows.push(["reference", "none (--reference MODEL measures a baseline the same way)"]);
  rows.push(["time", `${seconds.toFixed(1)} s`]);
  return rows;
}

function taskLine({
  acc,
  stderr,
  n,
  accNorm,
  accNormStderr,
  perplexity,
  perplexityStderr,
}: TaskResult): string {
  const parts = [`acc ${percent(acc, stderr)}`];
  if (accNorm !== undefined) parts.push(`acc_norm ${percent(accNorm, accNormStderr)}`);
  if (perplexity !== undefined) parts.push(`perplexity ${withError(perplexity, perplexityStderr, 3)}`);
  return `${parts.join(", ")}, ${n} questions`;
}

function withError(value: number, stderr: number | null | undefined, digits: number): string {
  const error = stderr === null || stderr === undefined ? "" : ` ± ${stderr.toFixed(digits)}`;
  return value.toFixed(digits) + error;
}

function percent(value: number, stderr?: number | null): string {
  return `${withError(100 * value, typeof stderr === "number" ? 100 * stderr : null, 2)} %`;
}
