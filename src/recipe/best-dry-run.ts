/** \`compress --recipe best --dry-run\`: what compression alone will do, and time and memory of the training with it. */
import { openCheckpoint } from "../checkpoint/open.js";
import { type DryRunReport, dryRun } from "../compress/index.js";
import { backwardBytes } from "../transformer/model-backward.js";
import { codedModelBytes } from "../tune/coded-model.js";
import { originalBytes } from "../tune/original.js";
import { CONTEXT, learningBytes } from "./absorb.js";
import { type BestOptions, TIME_BUDGET } from "./best.js";

/** Node, the program and its workers, once more: training has a memory of its own. */
const BASE_BYTES = 150e6;

/** Errors as \`dryRun\`. */
export async function dryRunBest(options: Omit<BestOptions, "out">): Promise<DryRunReport> {
  const { timeBudget = TIME_BUDGET } = options;
  const report = await dryRun(options);
  const checkpoint = await openCheckpoint(options.source);
  try {
    const { config, bytes16 } = checkpoint;
    if (!report.forecast) return report;
    const { seconds, memoryBytes } = report.forecast;
    const step = backwardBytes(config, 1, Math.min(CONTEXT, config.contextLength));
    const learning = learningBytes(checkpoint);
    const tuning =
      BASE_BYTES + originalBytes(config, bytes16) + codedModelBytes(config) + report.weightBytes + step;
    // Beside what compression has at that time, which is most of what it ever has.
    const absorbing = learning === null ? 0 : memoryBytes + learning + step;
    return {
      ...report,
      forecast: { seconds: seconds + timeBudget, memoryBytes: Math.max(memoryBytes, absorbing, tuning) },
    };
  } finally {
    await checkpoint.close();
  }
}
