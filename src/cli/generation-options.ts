/** The options of every command that generates text: how tokens are chosen, where text ends, the machine. */
import { type Command, InvalidArgumentError, Option } from "commander";
import type { OnContextFull } from "../runtime/generate.js";
import type { SamplingOptions } from "../runtime/sampling.js";
import { CACHE_FORMATS, type CacheFormat } from "../transformer/kv-cache.js";
import {
  ADAPTER_OPTION,
  collect,
  nonNegativeInteger,
  nonNegativeNumber,
  positiveInteger,
} from "./command.js";

/** What commander makes of them; undefined where an option has no default. */
export interface GenerationFlags
  extends Required<
    Pick<SamplingOptions, "temperature" | "topK" | "topP" | "minP" | "repetitionPenalty" | "seed">
  > {
  readonly stop?: string[];
  readonly maxTokens: number;
  readonly threads?: number;
  readonly context?: number;
  readonly adapter?: string;
  readonly onContextFull: OnContextFull;
  readonly kvCache?: CacheFormat;
}

export function addGenerationOptions(command: Command, maxTokens: number): Command {
  return command
    .option("--max-tokens <n>", "tokens to generate at most", positiveInteger, maxTokens)
    .option(
      "--temperature <t>",
      "0 takes the most likely token, 1 draws as the model says",
      nonNegativeNumber,
      0,
    )
    .option("--top-k <k>", "draw from the k most likely tokens; 0 for all", nonNegativeInteger, 0)
    .option("--top-p <p>", "draw from the most likely tokens that hold this share", share, 1)
    .option("--min-p <p>", "draw from tokens at least this many times as likely as the best", share, 0)
    .option("--repetition-penalty <x>", "above 1: makes tokens seen before less likely", nonNegativeNumber, 1)
    .option("--seed <n>", "same seed, same text", nonNegativeInteger, 0)
    .option("--stop <text>", "end before this text; may be given several times", collect)
    .option("--threads <n>", "threads to compute with (default: the cores)", positiveInteger)
    .option(...ADAPTER_OPTION)
    .option("--context <n>", "longest sequence in tokens (default: the model's)", positiveInteger)
    .addOption(
      new Option("--on-context-full <action>", "refuse what does not fit, or shift: forget the older half")
        .choices(["refuse", "shift"])
        .default("refuse"),
    )
    .addOption(kvCacheOption());
}

/** How keys and values are stored, for every command that runs a model; `eval` has f32 where none is given. */
export function kvCacheOption(): Option {
  return new Option(
    "--kv-cache <format>",
    "how keys and values of past tokens are stored (default: f16, to measure f32)",
  ).choices(CACHE_FORMATS);
}

/** The part of the flags that `generate` takes. Log-probabilities are not shown, so not computed. */
export function generationOptions(flags: GenerationFlags) {
  const {
    temperature,
    topK,
    topP,
    minP,
    repetitionPenalty,
    seed,
    stop = [],
    maxTokens,
    onContextFull,
  } = flags;
  const sampling = { temperature, topK, topP, minP, repetitionPenalty, seed, logprobs: false };
  return { ...sampling, stop, maxTokens, onContextFull };
}

function share(value: string): number {
  const n = nonNegativeNumber(value);
  if (n > 1) throw new InvalidArgumentError("expected a number between 0 and 1.");
  return n;
}
