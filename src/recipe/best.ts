/**
 * The recipe "best": compression with calibration text, in the middle of which the layers are trained for the coded
 * embedding, then distillation on the same text; both within a time budget.
 * The compressed folder in between lies beside the output (`<out>.balanced`) until the tuned one is whole.
 */
import { rename, rm } from "node:fs/promises";
import type { CompressOptions, CompressReport } from "../compress/index.js";
import { exists, withoutSlash } from "../container/disk.js";
import { openFolder } from "../container/reader.js";
import { FolderWriter, unfinishedFolder } from "../container/writer.js";
import { InputError, UsageError } from "../errors.js";
import { refuseUnfinished } from "../training/options.js";
import { NoGainError } from "../training/trainer.js";
import { stateFolder, type TuneOptions, type TuneReport, tune } from "../tune/index.js";
import { absorbingFolder, planAbsorption } from "./absorb.js";
import type { AbsorbReport } from "./absorbed.js";
import { compressOnce } from "./once.js";

/** Of the time budget. SmolLM2-135M at 10x, an hour: 1.012 with all of it for distillation, .952 so (docs/quality.md). */
const ABSORBING = 0.4;
/** Seconds, where no other budget is given. */
export const TIME_BUDGET = 3600;

export interface BestOptions extends CompressOptions {
  /** Text to compress for and to learn on. */
  readonly calibration: readonly string[];
  /** Seconds for all training; compression comes on top. Default: an hour. */
  readonly timeBudget?: number | undefined;
}

export interface BestReport {
  readonly weightBytes: number;
  readonly ratio: number;
  /** Null when an interrupted run had compressed already. */
  readonly compressed: CompressReport | null;
  /** Null when an interrupted run had compressed already, the model is too large for it, or it did not help. */
  readonly absorbed: AbsorbReport | null;
  /** Null when tuning did not help: the folder is the compressed model as it was. */
  readonly tuned: TuneReport | null;
}

/** Errors as `compress` and `tune`; an interrupted run goes on with `resume` and ends with the same bytes. */
export async function compressBest(options: BestOptions): Promise<BestReport> {
  const { source, calibration, seed, threads, resume = false, signal, onProgress } = options;
  const out = withoutSlash(options.out);
  const balanced = `${out}.balanced`;
  if (await exists(out)) await FolderWriter.check(out, false);
  // Looked at again by `tune`, but only after the compression.
  await refuseUnfinished(stateFolder(out), resume);
  await refuseUnfinished(absorbingFolder(out), resume);
  const { timeBudget = TIME_BUDGET } = options;
  const absorb = await planAbsorption(options, ABSORBING * timeBudget);
  const rest = absorb ? (1 - ABSORBING) * timeBudget : timeBudget;
  const compressing = { ...options, out: balanced, ...(absorb && { absorb }) };
  const compressed = await compressOnce(compressing).catch(async (error) => {
    // Refused before any work: nothing is left that a next run would have to go on with.
    if (!(await exists(balanced)) && !(await exists(unfinishedFolder(balanced)))) await forget(out);
    throw error;
  });
  const tuned = await tuneOrSay(balanced, {
    folder: balanced,
    original: source,
    data: calibration,
    out,
    timeBudget: rest,
    seed,
    threads,
    resume,
    signal,
    onProgress,
  });
  if (tuned) await rm(balanced, { recursive: true, force: true });
  else {
    await rename(balanced, out);
    await rm(stateFolder(out), { recursive: true, force: true });
  }
  await forget(out);
  const folder = await openFolder(out);
  const { weightBytes, bytes16 } = folder;
  await folder.close();
  return { weightBytes, ratio: bytes16 / weightBytes, compressed, absorbed: absorb?.report ?? null, tuned };
}

/** What training for the coded embedding has kept. */
async function forget(out: string): Promise<void> {
  await rm(absorbingFolder(out), { recursive: true, force: true });
}

/** Null when it did not help. */
async function tuneOrSay(balanced: string, options: TuneOptions): Promise<TuneReport | null> {
  try {
    return await tune(options);
  } catch (error) {
    if (error instanceof NoGainError) return null;
    if (!(error instanceof InputError)) throw error;
    const Kind = error instanceof UsageError ? UsageError : InputError;
    throw new Kind(`${error.message} (the compressed model, not tuned, is in ${balanced})`);
  }
}
