/** The sizes that a model can be compressed to. */
import { openCheckpoint } from "../checkpoint/open.js";
import { createBackend } from "../compute/index.js";
import { type PlanningOptions, resolveOptions } from "./options.js";
import { planFor } from "./prepare.js";
import { trellisCodec } from "./trellis-codec.js";

/**
 * Mean bits a weight, everything in the weight files counted, with the lowest and with the highest rates of the
 * trellis codec everywhere. Errors as `compress`.
 */
export async function bitsRange(
  options: Pick<PlanningOptions, "source">,
): Promise<{ readonly least: number; readonly most: number }> {
  const checkpoint = await openCheckpoint(options.source);
  try {
    const backend = await createBackend({ threads: 1 });
    try {
      const result = resolveOptions({ ...options, target: { kind: "bits", bits: 16 } }, checkpoint.config);
      const plan = planFor({ checkpoint, result }, trellisCodec(backend.runtime));
      const bits = (bytes: number) => (16 * bytes) / checkpoint.bytes16;
      return { least: bits(plan.smallestBytes), most: bits(plan.predictedBytes) };
    } finally {
      await backend.close();
    }
  } finally {
    await checkpoint.close();
  }
}
