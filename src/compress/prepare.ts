/** What `compress` and its dry run settle before any work: the plan, and the calibration text as windows. */
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { InputError } from "../errors.js";
import { createTokenizer } from "../text/tokenizer.js";
import { calibrationWindows } from "./calibration-text.js";
import type { MatrixCodec } from "./codec.js";
import { codedMatrices } from "./matrices.js";
import type { CompressOptions, ResultOptions } from "./options.js";
import { type CompressionPlan, planCompression, type Sensitivities } from "./plan.js";
import { targetBytes } from "./target.js";

export interface Run {
  readonly checkpoint: Checkpoint;
  readonly options: CompressOptions;
  readonly result: ResultOptions;
}

/** The plan alone, before any work. */
export function planFor<Code>(
  { checkpoint, result }: Omit<Run, "options">,
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
  });
}

/** The checkpoint's order: coded matrices, whose tensors are `coded`, by their names without ".weight". */
export function storedOrder(checkpoint: Checkpoint, coded: ReadonlySet<string>): string[] {
  return [...checkpoint.tensors.keys()].map((name) =>
    coded.has(name) ? name.slice(0, -".weight".length) : name,
  );
}

/** `files` tokenised and cut into windows; none without files. InputError for a model without a tokenizer. */
export async function windowsFor(
  { checkpoint, result }: Run,
  files: readonly string[],
): Promise<Int32Array[]> {
  if (files.length === 0) return [];
  const tokenizerFiles = await checkpoint.tokenizer();
  if (!tokenizerFiles)
    throw new InputError(
      `${checkpoint.source} has no tokenizer: calibration text cannot be used (--data-free)`,
    );
  return calibrationWindows(files, createTokenizer(tokenizerFiles), {
    context: result.calibrationContext,
    windows: Math.floor(result.calibrationTokens / result.calibrationContext),
    seed: result.seed,
  });
}
