/**
 * How many tokens fit a time budget. It is measured once, on the machine and the models themselves, and kept
 * beside the run's state, so that a run that is resumed trains on as many and ends with the same bytes.
 */
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { writeAtomically } from "../checkpoint/safetensors-write.js";
import { errorCode } from "../container/disk.js";
import { CorruptFileError, UsageError } from "../errors.js";

const FILE = "budget.json";

export interface Pace {
  /** Of a training step on average. */
  readonly secondsPerStep: number;
  /** Of everything else, what has passed already included. */
  readonly secondsBeside: number;
}

/** Whole steps that fit `seconds`. UsageError when not one does. */
export function stepsWithin(seconds: number, { secondsPerStep, secondsBeside }: Pace): number {
  const steps = Math.floor((seconds - secondsBeside) / secondsPerStep);
  if (steps < 1) {
    const least = Math.ceil((secondsBeside + secondsPerStep) / 60);
    throw new UsageError(`the time budget is too short: a single step would need ${least} minutes here`);
  }
  return steps;
}

/** The steps that the run in `folder` was begun with, or those that `decide` gives, which are kept there. */
export async function decidedSteps(
  folder: string,
  resume: boolean,
  decide: () => Promise<number>,
): Promise<number> {
  const path = join(folder, FILE);
  if (resume) {
    const found = await readSteps(path);
    if (found !== undefined) return found;
  }
  const steps = await decide();
  await mkdir(folder, { recursive: true });
  const text = JSON.stringify({ steps });
  await writeAtomically(path, (write) => write(new TextEncoder().encode(text)));
  return steps;
}

async function readSteps(path: string): Promise<number | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw error;
  }
  const match = /^\{"steps":([1-9]\d{0,11})\}$/.exec(text);
  if (!match) throw new CorruptFileError(`${path} is damaged: delete the folder and start again`);
  return Number(match[1]);
}
