/** `pocketllm bench`: speed, memory and load time of models, measured in turn. */
import type { Command } from "commander";
import { type BenchReport, benchModels, type ModelSpeed, NEW_TOKENS, RUNS } from "../../bench/bench.js";
import type { KernelReport } from "../../bench/kernels.js";
import { collect, defineCommand, positiveInteger } from "../command.js";
import { megabytes } from "../format.js";
import { findModel, MODEL } from "../model.js";

interface Flags {
  readonly against?: readonly string[];
  readonly threads?: number;
  readonly tokens: number;
  readonly runs: number;
}

export function registerBench(program: Command): void {
  const command = program
    .command("bench")
    .description(
      "measure tokens per second, time to the first token, memory and load time; models in turn, each in a process of its own",
    )
    .argument("<model>", MODEL)
    .option("--against <model>", "a model to compare with, measured in the same run (repeatable)", collect)
    .option("--threads <n>", "threads to compute with (default: the cores, at most 8)", positiveInteger)
    .option("--tokens <n>", "tokens decoded in a run", positiveInteger, NEW_TOKENS)
    .option("--runs <n>", "runs of each kind", positiveInteger, RUNS);
  defineCommand<Flags>(
    command,
    "pocketllm bench ./smollm2-10x --against ./SmolLM2-135M.gguf --threads 2",
    async (context, [source], { against = [], threads, tokens, runs }) => {
      const { signal, onProgress, print } = context;
      const names = [source, ...against];
      const models: string[] = [];
      for (const name of names) models.push((await findModel(name, context)).path);
      const measured = await benchModels({ models, threads, tokens, runs, signal, onProgress });
      const report = { ...measured, models: measured.models.map((m, i) => ({ ...m, model: names[i] })) };
      for (const line of lines(report)) print(line);
      const [first, ...others] = report.models;
      const { kernels, machine, load } = report;
      return { ...first, against: others, kernels, machine, load };
    },
  );
}

type Row = readonly [name: string, of: (model: ModelSpeed) => string];

const number = (value: number | null, digits = 1) => (value === null ? "" : value.toFixed(digits));

const ROWS: readonly Row[] = [
  ["prefill, tokens/s", ({ prefill }) => number(prefill)],
  ["  best run", ({ speeds }) => number(speeds.prefill.best)],
  ["  per CPU-second", ({ speeds }) => number(speeds.prefill.tokensPerCpuSecond)],
  ["decode, tokens/s", ({ decode }) => number(decode)],
  ["  best run", ({ speeds }) => number(speeds.decode.best)],
  ["  per CPU-second", ({ speeds }) => number(speeds.decode.tokensPerCpuSecond)],
  ["time to first token, s", ({ timeToFirstToken }) => number(timeToFirstToken, 2)],
  ["load, s", ({ loadSeconds }) => number(loadSeconds, 2)],
  ["  read and hash alone", ({ readAndHashSeconds }) => number(readAndHashSeconds, 2)],
  ["resident memory", ({ residentBytes }) => megabytes(residentBytes)],
  ["  Node before loading", ({ nodeBytes }) => megabytes(nodeBytes)],
  ["  weights", ({ heldBytes }) => megabytes(heldBytes)],
  ["  KV cache", ({ cacheBytes }) => megabytes(cacheBytes)],
  ["weight files", ({ fileBytes }) => megabytes(fileBytes)],
];

function lines({ models, kernels, machine, load }: BenchReport): string[] {
  const row = (name: string, cells: readonly string[]) =>
    name.padEnd(26) + cells.map((cell) => cell.padStart(14)).join("");
  const [first] = models;
  return [
    ...models.map(({ model }, i) => `${i + 1}: ${model}`),
    `${first.threads} threads, prompt of ${first.promptTokens} tokens; ${machine.cores} cores, ${machine.processor}, Node ${machine.node}, load ${load.toFixed(1)}`,
    row(
      "",
      models.map((_, i) => String(i + 1)),
    ),
    ...ROWS.map(([name, of]) => row(name, models.map(of))),
    ...(kernels ? kernelLines(kernels) : []),
  ];
}

function kernelLines({ lookUps, bandwidth, kernels }: KernelReport): string[] {
  const row = (cells: readonly string[]) =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(26) : cell.padStart(14))).join("");
  const percent = (share: number) => `${(100 * share).toFixed(0)} %`;
  return [
    `kernel of one token, 1 thread: ${(lookUps / 1e9).toFixed(1)} G look-ups/s, ${(bandwidth / 1e9).toFixed(0)} GB/s`,
    row(["rows x columns, bits", "matrices", "µs", "Gweights/s", "of look-ups", "of memory"]),
    ...kernels.map((kernel) =>
      row([
        `${kernel.rows} x ${kernel.columns}, ${kernel.bits.toFixed(2)}`,
        String(kernel.count),
        kernel.microseconds.toFixed(1),
        kernel.gweightsPerSecond.toFixed(1),
        percent(kernel.ofLookUps),
        percent(kernel.ofMemory),
      ]),
    ),
  ];
}
