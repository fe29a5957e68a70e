/** What `compress` and its dry run settle before any work: the plan, and the calibration text as windows. */
import type { Checkpoint, TokenizerFiles } from "../checkpoint/checkpoint.js";
import { InputError } from "../errors.js";
import { createTokenizer } from "../text/tokenizer.js";
import { calibrationWindows } from "./calibration-text.js";
import type { MatrixCodec } from "./codec.js";
import { codedMatrices } from "./matrices.js";
import type { CompressionSource } from "./merged.js";
import type { PlanningOptions, ResultOptions } from "./options.js";
import { type CompressionPlan, planCompression, type Sensitivities } from "./plan.js";
import { targetBytes } from "./target.js";

export interface Planning {
  readonly checkpoint: CompressionSource;
  readonly options: PlanningOptions;
  readonly result: ResultOptions;
}

/** The plan alone, before any work. */
export function planFor<Code>(
  { checkpoint, result }: Omit<Planning, "options">,
  codec: MatrixCodec<Code>,
  sensitivities?: Sensitivities | undefined,
): CompressionPlan<Code> {
  const matrices = codedMatrices(checkpoint.config);
  const names = new Set(matrices.map(({ name }) => `${name}.weight`));
  return planCompression({
    matrices,
    plain: [...checkpoint.tensors.values()].filter(({ name }) => !names.has(name)),
    order: storedOrder(checkpoint, names),
    budget: targetBytes(result.target, checkpoint.bytes16),
    rates: (rows, columns) => codec.rates(rows, columns),
    layers: checkpoint.config.layers,
    sensitivities,
    uniform: result.without.includes("allocation"),
  });
}

/** The checkpoint's order: coded matrices, whose tensors are `coded`, by their names without ".weight". */
export function storedOrder(checkpoint: Checkpoint, coded: ReadonlySet<string>): string[] {
  return [...checkpoint.tensors.keys()].map((name) =>
    coded.has(name) ? name.slice(0, -".weight".length) : name,
  );
}

/** Calibration text as it will be used. */
export interface Calibration {
  readonly files: readonly string[];
  /** Of one length; none without files. */
  readonly windows: readonly Int32Array[];
  /** Others, that the result is measured on; none where there is too little text. */
  readonly heldOut: readonly Int32Array[];
}

/** 4096 tokens at the default context: a tenth of the default calibration text. */
const HELD_OUT_WINDOWS = 8;
/** Of little text, this part at most. */
const HELD_OUT_SHARE = 1 / 8;

/** The text tokenised and cut into windows. InputError for text without a tokenizer, or that cannot be used. */
export async function readCalibration(
  { checkpoint, options, result }: Planning,
  tokenizerFiles: TokenizerFiles | null,
): Promise<Calibration> {
  const files = result.method === "trellis" ? (options.calibration ?? []) : [];
  if (files.length === 0) return { files, windows: [], heldOut: [] };
  if (!tokenizerFiles)
    throw new InputError(
      `${checkpoint.source} has no tokenizer: calibration text cannot be used (--data-free)`,
    );
  const wanted = Math.floor(result.calibrationTokens / result.calibrationContext);
  const windows = await calibrationWindows(files, createTokenizer(tokenizerFiles), {
    context: result.calibrationContext,
    windows: wanted + HELD_OUT_WINDOWS,
    seed: result.seed,
  });
  const held = Math.min(HELD_OUT_WINDOWS, Math.floor(windows.length * HELD_OUT_SHARE));
  const used = Math.min(wanted, windows.length - held);
  return { files, windows: windows.slice(0, used), heldOut: windows.slice(used, used + held) };
}
