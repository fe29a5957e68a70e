/** Coding without calibration: every matrix on its own, as many at a time as there are threads and memory for. */
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import type { Coder } from "./coder.js";
import type { CompressionPlan } from "./plan.js";

/**
 * Weights in work at once: coding holds several f32 copies of a matrix, and the memory that threads share
 * ends at 4 GiB. Two of Llama-2-7B's largest layer matrices (45 million weights) fit. A larger one is alone.
 */
const WEIGHTS_AT_ONCE = 92e6;

export async function codeWithoutData<Code>(options: {
  readonly checkpoint: Checkpoint;
  readonly plan: CompressionPlan<Code>;
  readonly coder: Coder<Code>;
  readonly concurrency: number;
}): Promise<void> {
  const { checkpoint, plan, coder, concurrency } = options;
  const running = new Map<Promise<void>, number>();
  const room = (weights: number) => {
    let inWork = 0;
    for (const n of running.values()) inWork += n;
    return running.size === 0 || (running.size < concurrency && inWork + weights <= WEIGHTS_AT_ONCE);
  };
  try {
    for (const matrix of plan.matrices) {
      const weights = matrix.rows * matrix.columns;
      while (!room(weights)) await Promise.race(running.keys());
      const job: Promise<void> = coder
        .code(matrix, async () => ({ weights: await checkpoint.read(`${matrix.name}.weight`) }))
        .then(() => void running.delete(job));
      running.set(job, weights);
    }
    await Promise.all(running.keys());
  } finally {
    // After a failure the others still run: they are let end before what they work on is freed.
    await Promise.allSettled(running.keys());
  }
}
