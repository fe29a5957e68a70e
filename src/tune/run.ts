/** What every way of tuning works with, and what it writes about itself. */
import type { WasmBackend } from "../compute/index.js";
import { sha256 } from "../container/disk.js";
import type { PocketFolder } from "../container/folder.js";
import { describeFiles } from "../container/input-files.js";
import type { JsonObject, Provenance } from "../container/manifest.js";
import { decidedSteps, type Pace, stepsWithin } from "../training/budget.js";
import type { TrainingSet } from "../training/data.js";
import type { StateIdentity } from "../training/state.js";
import { TOOL, VERSION } from "../version.js";
import type { ResultOptions, TuneOptions } from "./options.js";
import type { OriginalModel } from "./original.js";

export interface TuningRun {
  readonly options: TuneOptions;
  readonly result: ResultOptions;
  readonly folder: PocketFolder;
  readonly set: TrainingSet;
  readonly backend: WasmBackend;
  /** The folder of the unfinished run. */
  readonly state: string;
  /** When the run began, in milliseconds. */
  readonly started: number;
}

export interface Distillation extends TuningRun {
  readonly teacher: OriginalModel;
}

/** How the folder is tuned, for the manifest: `own` and what every way has. */
export async function describeTuning(run: TuningRun, own: JsonObject): Promise<JsonObject> {
  const { options, result, set, backend } = run;
  const { context, batch, learningRate, seed, selfData } = result;
  // Spread: an interface is no JsonObject.
  const data = (await describeFiles(options.data)).map((file) => ({ ...file }));
  const { arithmetic } = backend.runtime;
  return {
    ...own,
    ...{ context, batch, learningRate, seed, arithmetic, examples: set.fingerprint, data },
    ...(selfData !== undefined && { selfData }),
  };
}

/** What the state of an unfinished run belongs to. */
export function identityOf({ folder }: TuningRun, tuning: JsonObject): StateIdentity {
  const files = [...folder.manifest.files].map(([name, { sha256 }]) => `${name} ${sha256}`).join("\n");
  return { model: sha256(files), options: sha256(JSON.stringify(tuning)) };
}

export function tunedProvenance({ manifest }: PocketFolder, tuning: JsonObject): Provenance {
  const { provenance: before } = manifest;
  return { ...before, tool: TOOL, toolVersion: VERSION, options: { ...before.options, tuning } };
}

/** `whole`, or as many steps as fit the time budget at the pace that is measured. */
export async function stepsOf(
  { options, state, started }: TuningRun,
  whole: number,
  pace: () => Promise<Pace>,
): Promise<number> {
  const { timeBudget } = options;
  if (timeBudget === undefined) return whole;
  return await decidedSteps(state, options.resume ?? false, async () => {
    options.onProgress?.({ stage: "measuring the pace", done: 0, total: 1 });
    const { secondsPerStep, secondsBeside } = await pace();
    const passed = (performance.now() - started) / 1000;
    return stepsWithin(timeBudget, { secondsPerStep, secondsBeside: passed + secondsBeside });
  });
}

/** Seconds that `run` takes: the best of `times`, since a moment's load would shorten hours of training. */
export async function timed(run: () => Promise<unknown>, times = 1): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < times; i++) {
    const begun = performance.now();
    await run();
    best = Math.min(best, performance.now() - begun);
  }
  return best / 1000;
}
