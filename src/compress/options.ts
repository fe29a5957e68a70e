/** Options of `compress`, checked before any work. */
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import type { ModelConfig } from "../checkpoint/config.js";
import type { JsonObject } from "../container/manifest.js";
import { UsageError } from "../errors.js";
import { checkWhole } from "../options.js";
import type { OnProgress } from "../progress.js";
import { DEFAULT_TARGET, type Target } from "./target.js";

export type Method = "trellis" | "meta";

/**
 * Parts of the calibrated trellis method that can be left out, to see what each is worth. `allocation`: bits
 * where errors cost most; else the same everywhere. `row-weights`: errors moved to rows where they cost little.
 * `correction`: targets corrected for what coding has done to a matrix's input. `feedback`: of rounding errors to later columns.
 */
export const PARTS = ["allocation", "row-weights", "correction", "feedback"] as const;
export type Part = (typeof PARTS)[number];

/** Trains what is not coded yet for the coded embedding, where calibration text is given. */
export interface Absorb {
  /** What its result depends on, for the manifest. */
  readonly description: JsonObject;
  /**
   * `embedding`: [vocabularySize, hiddenSize], as coded. The model whose layers are to be coded, which is closed
   * afterwards; or `checkpoint` itself.
   */
  run(checkpoint: Checkpoint, embedding: Float32Array): Promise<Checkpoint>;
}

export interface CompressOptions {
  /** A Hugging Face folder, a .gguf file or a llama2.c .bin file. */
  readonly source: string;
  /** The folder of a LoRA adapter in PEFT's form that is merged into the weights first. */
  readonly adapter?: string | undefined;
  /** The folder to make; must not exist. */
  readonly out: string;
  /** Default 10x. */
  readonly target?: Target | undefined;
  /** Default trellis. */
  readonly method?: Method | undefined;
  /** Text, .jsonl or .json files. Absent or empty: coded without data. Not used by `meta`. */
  readonly calibration?: readonly string[] | undefined;
  /** Tokens of calibration text to use at most. Default 49152, or fewer for models wider than 2730. */
  readonly calibrationTokens?: number | undefined;
  /** Tokens of a calibration window. Default 512, or the model's context length where that is shorter. */
  readonly calibrationContext?: number | undefined;
  /** Seed of the rotation, of the choice of calibration windows and of training. Default 0. */
  readonly seed?: number | undefined;
  /** Threads. Default: the cores, at most 8. The result does not depend on it. */
  readonly threads?: number | undefined;
  /** Parts of the method to leave out. Default: none. */
  readonly without?: readonly Part[] | undefined;
  /** Training between coding the embedding and coding the layers: a part of the recipe "best". Default: none. */
  readonly absorb?: Absorb | undefined;
  /** Go on with an interrupted run of the same source and options. */
  readonly resume?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** What a plan is made from. */
export type PlanningOptions = Omit<CompressOptions, "out" | "resume">;

/** Options that change the result, with their defaults filled in: what the manifest records. */
export interface ResultOptions {
  readonly target: Target;
  readonly method: Method;
  readonly calibrationTokens: number;
  readonly calibrationContext: number;
  readonly seed: number;
  /** In the order of `PARTS`. */
  readonly without: readonly Part[];
}

/**
 * Twice as many as errors of single matrices need: the residual stream's correction is a regression on up to
 * `intermediateSize` numbers. pocket-stories at 10x: KL .374, .343, .333 with 16, 32 and 64 thousand.
 * 49,152 took SmolLM2-135M 927 s on two cores.
 */
const DEFAULT_TOKENS = 49152;
/** What both streams and the attention output between them may take: wider models than 2730 get fewer tokens. */
const STREAM_BYTES = 1.25 * 2 ** 30;
const STREAM_FLOATS = 3;

/** Throws UsageError for values out of range. */
export function resolveOptions(
  options: PlanningOptions,
  { contextLength, hiddenSize }: Pick<ModelConfig, "contextLength" | "hiddenSize">,
): ResultOptions {
  const {
    target = DEFAULT_TARGET,
    method = "trellis",
    calibrationContext = Math.min(512, contextLength),
    seed = 0,
    without = [],
  } = options;
  const room = Math.floor(STREAM_BYTES / (STREAM_FLOATS * 4 * hiddenSize));
  const { calibrationTokens = Math.max(calibrationContext, Math.min(DEFAULT_TOKENS, room)) } = options;
  if (method !== "trellis" && method !== "meta")
    throw new UsageError(`method must be trellis or meta, not ${method}`);
  checkWhole("seed", seed, 0, 2 ** 32 - 1);
  checkWhole("calibration context", calibrationContext, 16, contextLength);
  checkWhole("calibration tokens", calibrationTokens, calibrationContext, 2 ** 24);
  for (const part of without)
    if (!PARTS.includes(part)) throw new UsageError(`there is no part ${part}: ${PARTS.join(", ")}`);
  if (without.length > 0 && (method !== "trellis" || !options.calibration?.length))
    throw new UsageError("parts can be left out only of method trellis with calibration text");
  const parts = PARTS.filter((part) => without.includes(part));
  return { target, method, calibrationTokens, calibrationContext, seed, without: parts };
}
