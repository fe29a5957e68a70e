/** Coding without calibration: every matrix on its own, as many at a time as there are threads. */
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import type { Coder } from "./coder.js";
import type { CompressionPlan } from "./plan.js";

/**
 * Matrices above this many weights are coded one at a time: coding holds about six f32 copies, and the
 * memory that threads share ends at 4 GiB.
 */
const LARGE = 2 ** 26;

export async function codeWithoutData<Code>(options: {
  readonly checkpoint: Checkpoint;
  readonly plan: CompressionPlan<Code>;
  readonly coder: Coder<Code>;
  readonly concurrency: number;
}): Promise<void> {
  const { checkpoint, plan, coder } = options;
  const largest = plan.matrices.reduce((max, { rows, columns }) => Math.max(max, rows * columns), 0);
  const lanes = largest > LARGE ? 1 : options.concurrency;
  const queue = [...plan.matrices];
  let failed = false;
  const lane = async () => {
    for (let matrix = queue.shift(); matrix && !failed; matrix = queue.shift()) {
      const name = `${matrix.name}.weight`;
      try {
        await coder.code(matrix, async () => ({ weights: await checkpoint.read(name) }));
      } catch (error) {
        failed = true;
        throw error;
      }
    }
  };
  const results = await Promise.allSettled(Array.from({ length: lanes }, lane));
  for (const result of results) if (result.status === "rejected") throw result.reason;
}
