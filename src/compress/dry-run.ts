/**
 * `compress --dry-run`: the plan that a run with the same options would follow, its exact size, and a forecast
 * of its time and memory. Nothing is written. With calibration text the sensitivities that decide the plan are
 * measured, which is a fifth of a whole run on SmolLM2-135M.
 */
import { createBackend } from "../compute/index.js";
import type { MatrixCodec } from "./codec.js";
import { type Forecast, forecast } from "./forecast.js";
import { openSource } from "./merged.js";
import { metaCodec } from "./meta-codec.js";
import { type PlanningOptions, resolveOptions } from "./options.js";
import { planFor, readCalibration } from "./prepare.js";
import { measureSensitivities } from "./sensitivity.js";
import { trellisCodec } from "./trellis-codec.js";

export interface PlannedRate {
  /** Tensor name without ".weight". */
  readonly name: string;
  /** Rows [start, end) that are coded at this rate. */
  readonly rows: readonly [start: number, end: number];
  readonly columns: number;
  /** Such as "2 bits". */
  readonly rate: string;
}

export interface DryRunReport {
  readonly plan: readonly PlannedRate[];
  /** Bytes that the weight files will have: exact while they fit one file of 256 MiB. */
  readonly weightBytes: number;
  /** Bytes of the model as 16-bit safetensors. */
  readonly bytes16: number;
  readonly ratio: number;
  /** Of the run, without the dry run; null for the method "meta", whose training depends on its options. */
  readonly forecast: Forecast | null;
}

/** Errors as `compress`. */
export async function dryRun(options: PlanningOptions): Promise<DryRunReport> {
  const { signal, onProgress } = options;
  const checkpoint = await openSource(options);
  try {
    const result = resolveOptions(options, checkpoint.config);
    const planning = { checkpoint, options, result };
    const backend = await createBackend({ threads: options.threads });
    try {
      const reportOf = async <Code>(codec: MatrixCodec<Code>): Promise<DryRunReport> => {
        // Refuses a target out of reach before anything is measured.
        let plan = planFor(planning, codec);
        const { windows } = await readCalibration(planning, await checkpoint.tokenizer());
        if (windows.length > 0) {
          const { seed } = result;
          const measured = { backend, checkpoint, windows, seed, signal, onProgress };
          plan = planFor(planning, codec, (await measureSensitivities(measured)) ?? undefined);
        }
        const tokens = windows.length * (windows[0]?.length ?? 0);
        return {
          plan: plan.matrices.flatMap(({ name, columns, tiers }) =>
            tiers.map(({ rows, rate }) => ({ name, rows, columns, rate: rate.name })),
          ),
          weightBytes: plan.predictedBytes,
          bytes16: checkpoint.bytes16,
          ratio: checkpoint.bytes16 / plan.predictedBytes,
          forecast:
            codec.method === "trellis"
              ? forecast({
                  config: checkpoint.config,
                  matrices: plan.matrices,
                  tokens,
                  threads: backend.threads,
                })
              : null,
        };
      };
      return result.method === "trellis"
        ? await reportOf(trellisCodec(backend.runtime))
        : await reportOf(metaCodec(backend.runtime));
    } finally {
      await backend.close();
    }
  } finally {
    await checkpoint.close();
  }
}
