/** What `tune` is asked for, what it says in the end, and what it refuses of its options. */

import { adaptableMatrices } from "../adapter/adapter.js";
import type { AdapterBits } from "../adapter/peft-config.js";
import type { ModelConfig } from "../checkpoint/config.js";
import type { PocketFolder } from "../container/folder.js";
import { UsageError } from "../errors.js";
import { checkWhole } from "../options.js";
import { type RunOptions, resolveEpochs, resolveRun } from "../training/options.js";

/** An adapter to train (LoRA); defaults are the paper's. */
export interface AdapterOptions {
  /** Columns of B and rows of A. Default 32. */
  readonly rank?: number | undefined;
  /** What B A is multiplied by, times the rank. Default 64. */
  readonly alpha?: number | undefined;
  /** Bits of a stored number: 16, which is PEFT's form, 8 or 4 with a scale for each row. Default 16. */
  readonly bits?: AdapterBits | undefined;
}

/**
 * What learns: without `adapter` the folder's scales, tables and norms, by divergence from `original`; with it an
 * adapter and nothing else, by divergence where there is an `original`, else by the next token.
 *
 * Defaults: without `adapter` a batch of 1 window and a learning rate of .005 of the size of what is trained; with
 * it 16 examples and .0001.
 */
export interface TuneOptions extends RunOptions {
  /** The PocketLLM folder to tune. */
  readonly folder: string;
  /** The model it was made from: the teacher. */
  readonly original?: string | undefined;
  readonly adapter?: AdapterOptions | undefined;
  /** Instead of `data`: tokens of text that the original writes first. */
  readonly selfData?: number | undefined;
  /** With an original: tokens to train on, each seen once while the data lasts. Default 65536, or what `timeBudget` allows. */
  readonly tokens?: number | undefined;
  /** Without an original: times that each example is seen. Default 3, or what `timeBudget` allows. */
  readonly epochs?: number | undefined;
  /**
   * Seconds for everything but writing the result, instead of `tokens` or `epochs`: how many fit is measured before
   * training. Two runs may so end with different bytes; a run and its resumption do not.
   */
  readonly timeBudget?: number | undefined;
}

export interface TuneReport {
  readonly weightBytes: number;
  readonly ratio: number;
  /** Bytes of the adapter's weight file, part of `weightBytes`. */
  readonly adapterBytes?: number;
  readonly steps: number;
  readonly tokens: number;
  /** On held-out text, nats a token: divergence from the original, or without one cross-entropy. */
  readonly heldOutBefore: number;
  readonly heldOutAfter: number;
  /** The same with the adapter as it is stored. */
  readonly heldOutStored?: number;
  readonly tokensPerSecond: number;
  readonly seconds: number;
}

/** Options that change the result, with their defaults. */
export interface ResultOptions {
  readonly adapter:
    | Required<{ readonly [K in keyof AdapterOptions]: NonNullable<AdapterOptions[K]> }>
    | undefined;
  /** One of both: tokens with an original, epochs without. */
  readonly tokens: number;
  readonly epochs: number;
  readonly context: number;
  readonly batch: number;
  readonly learningRate: number;
  readonly seed: number;
  readonly selfData: number | undefined;
}

const ADAPTING = { context: 256, batch: 16, learningRate: 1e-4 };
/**
 * One window of 1024 tokens learns as much a token as four of 256, and the divergence grows with the position: untuned
 * SmolLM2-135M at 10x has 1.10 before 64 tokens of WikiText-2 and 1.45 after 768.
 */
const DISTILLING = { context: 1024, batch: 1 };
/**
 * Of distillation: the less was lost, the shorter the steps that still help. At 2.67 bits .005 raised the divergence of
 * SmolLM2-135M from .301 to .317 and .0015 lowers it, as for pocket-stories (.055 to .058 and .052); at 1.6 bits .005
 * and .01 are equally good.
 */
const HIGHEST_RATE = 0.005;
const HIGHEST_RATE_BITS = 1.6;
const RATE_BASE = 3;

/** UsageError, one line, for options out of range or that exclude each other. */
export function resolveTuning(
  options: TuneOptions,
  folder: Pick<PocketFolder, "config" | "weightBytes" | "bytes16">,
): ResultOptions {
  const model = folder.config;
  const { original, adapter, data, selfData, tokens = 65536, timeBudget } = options;
  if (original === undefined && !adapter)
    throw new UsageError("give the original to learn from, or train an adapter");
  if (selfData === undefined && data.length === 0) throw new UsageError("give text to learn on");
  if (selfData !== undefined && data.length > 0)
    throw new UsageError("give text to learn on or have the original write it (--self-data), not both");
  if (selfData !== undefined && original === undefined)
    throw new UsageError("--self-data is written by the original: give it with --distill");
  if (original === undefined && options.tokens !== undefined)
    throw new UsageError("--tokens is for --distill: give --epochs or --time-budget");
  if (original !== undefined && options.epochs !== undefined)
    throw new UsageError("--epochs is for training without --distill: give --tokens or --time-budget");
  const length = options.tokens ?? options.epochs;
  if (timeBudget !== undefined && length !== undefined)
    throw new UsageError(
      `give ${options.tokens === undefined ? "epochs" : "tokens"} or a time budget, not both`,
    );
  const defaults = adapter ? ADAPTING : { ...DISTILLING, learningRate: distillingRate(folder) };
  const run = resolveRun(options, model.contextLength, defaults);
  const { context, batch } = run;
  if (original !== undefined) checkWhole("tokens", tokens, context * batch, 2 ** 40);
  if (selfData !== undefined) checkWhole("self-data", selfData, 2 * context, 2 ** 30);
  const epochs = resolveEpochs(options.epochs, 3);
  return { adapter: adapter && resolveAdapter(adapter, model), tokens, epochs, ...run, selfData };
}

function distillingRate({ weightBytes, bytes16 }: Pick<PocketFolder, "weightBytes" | "bytes16">): number {
  const bits = (16 * weightBytes) / bytes16;
  const rate = HIGHEST_RATE * RATE_BASE ** Math.min(0, HIGHEST_RATE_BITS - bits);
  return Number(rate.toPrecision(2));
}

function resolveAdapter({ rank = 32, alpha = 64, bits = 16 }: AdapterOptions, model: ModelConfig) {
  const sides = [...adaptableMatrices(model).values()].flat();
  const largest = Math.min(4096, ...sides);
  if (!Number.isInteger(rank) || rank < 1 || rank > largest)
    throw new UsageError(
      `the adapter's rank must be a whole number from 1 to ${largest}, the smallest side of the model's matrices, not ${rank}`,
    );
  if (!Number.isFinite(alpha) || alpha <= 0 || alpha > 1e6)
    throw new UsageError(`the adapter's alpha must be a number above 0, at most 1000000, not ${alpha}`);
  if (bits !== 16 && bits !== 8 && bits !== 4)
    throw new UsageError(`the adapter's bits must be 16, 8 or 4, not ${bits}`);
  return { rank, alpha, bits };
}
