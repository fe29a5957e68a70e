/**
 * Text that the original model writes for its own distillation, where there is no other: sequences from single
 * tokens drawn from the whole vocabulary, each token after drawn as the model says (temperature 1), as in data-free
 * distillation of language models (LLM-QAT; Liu et al. 2023, arXiv 2305.17888, section 3.1). Kept beside the run's
 * state, some sequences a file, so that a run that was killed goes on with the same tokens.
 */
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { TokenizerFiles } from "../checkpoint/checkpoint.js";
import type { ModelConfig } from "../checkpoint/config.js";
import { writeAtomically } from "../checkpoint/safetensors-write.js";
import type { Backend } from "../compute/backend.js";
import { errorCode, reportFullDisk, sha256 } from "../container/disk.js";
import { InputError } from "../errors.js";
import type { OnProgress } from "../progress.js";
import { Random } from "../random.js";
import { createTokenizer } from "../text/tokenizer.js";
import { type TrainingSet, windowSet } from "../training/data.js";
import { cacheBytes, LockstepSession } from "../transformer/lockstep.js";
import type { OriginalModel } from "./original.js";

/** Sequences that are written together, and what their caches may take at most. */
const TOGETHER = 32;
const CACHE_BYTES = 2 ** 29;

export interface SelfDataOptions {
  readonly backend: Backend;
  readonly teacher: OriginalModel;
  /** Says whether texts begin with a token of their own. */
  readonly tokenizer: TokenizerFiles | null;
  readonly result: {
    readonly selfData: number | undefined;
    readonly context: number;
    readonly seed: number;
  };
  /** Where to keep it. */
  readonly state: string;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** Whole windows of `context` tokens, at least as many tokens as asked for; what is there already is read. */
export async function selfData(options: SelfDataOptions): Promise<TrainingSet> {
  const { teacher, tokenizer, result, state, onProgress } = options;
  const { selfData: tokens = 0, context, seed } = result;
  if (!teacher.resident)
    throw new InputError(`${teacher.checkpoint.source} is too large to write text here: give --data`);
  const { addsBos = false, bosTokenId = null } = tokenizer ? createTokenizer(tokenizer) : {};
  const begin = addsBos && bosTokenId !== null ? [bosTokenId] : [];
  const count = Math.ceil(tokens / context);
  const together = Math.max(
    1,
    Math.min(TOGETHER, Math.floor(CACHE_BYTES / cacheBytes(teacher.config, context))),
  );
  const windows: Int32Array[] = [];
  await mkdir(state, { recursive: true });
  for (let first = 0; first < count; first += together) {
    onProgress?.({ stage: "writing text to learn", done: first, total: count });
    const path = join(state, `self-data-${first}.json`);
    const group = { first, sequences: Math.min(together, count - first), context, seed, begin };
    const found = await readGroup(path, group, teacher.config);
    const written = found ?? (await writeGroup(path, group, options));
    windows.push(...written);
  }
  return windowSet(windows, { seed });
}

interface Group {
  /** Number of its first sequence. */
  readonly first: number;
  readonly sequences: number;
  readonly context: number;
  readonly seed: number;
  /** What each begins with, before the token that is drawn from the vocabulary. */
  readonly begin: readonly number[];
}

/** Null when there is none, or one that was damaged: it is written again then, the same. */
async function readGroup(path: string, group: Group, config: ModelConfig): Promise<Int32Array[] | null> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return null;
    throw error;
  }
  const json = text.slice(65);
  if (sha256(json) !== text.slice(0, 64)) return null;
  const kept = JSON.parse(json) as { group: Group; windows: number[][] };
  const { vocabularySize } = config;
  const sound =
    JSON.stringify(kept.group) === JSON.stringify(group) &&
    kept.windows.length === group.sequences &&
    kept.windows.every((ids) => ids.length === group.context && ids.every((id) => id < vocabularySize));
  return sound ? kept.windows.map((ids) => Int32Array.from(ids)) : null;
}

async function writeGroup(
  path: string,
  group: Group,
  { backend, teacher, signal }: SelfDataOptions,
): Promise<Int32Array[]> {
  const { first, sequences, context, seed, begin } = group;
  const { vocabularySize } = teacher.config;
  const windows = Array.from({ length: sequences }, () => new Int32Array(context));
  const randoms = windows.map((_, i) => new Random(sequenceSeed(seed, first + i)));
  const session = new LockstepSession(backend, teacher, sequences, context);
  try {
    let logits: Float32Array | undefined;
    for (let at = 0; at < context; at++) {
      for (const [i, ids] of windows.entries()) {
        const row = logits?.subarray(i * vocabularySize, (i + 1) * vocabularySize);
        if (at < begin.length) ids[at] = begin[at];
        else if (at === begin.length || !row) ids[at] = randoms[i].below(vocabularySize);
        else ids[at] = draw(row, randoms[i]);
      }
      const last = Int32Array.from(windows, (ids) => ids[at]);
      if (at < context - 1) logits = await session.forward(last, signal);
    }
  } finally {
    session.free();
  }
  const json = JSON.stringify({ group, windows: windows.map((ids) => [...ids]) });
  const bytes = new TextEncoder().encode(`${sha256(json)} ${json}`);
  await reportFullDisk(path, () => writeAtomically(path, (write) => write(bytes)));
  return windows;
}

/** Apart for each sequence, so that it does not depend on how many are written together. */
function sequenceSeed(seed: number, sequence: number): number {
  return new Random((new Random(seed).next() ^ sequence) >>> 0).next();
}

/** A token as likely as the model says. */
function draw(logits: Float32Array, random: Random): number {
  let largest = Number.NEGATIVE_INFINITY;
  for (const x of logits) largest = Math.max(largest, x);
  if (!Number.isFinite(largest))
    throw new InputError("the original predicts no numbers: its weights are damaged");
  const weights = new Float64Array(logits.length);
  let total = 0;
  for (let i = 0; i < logits.length; i++) total += weights[i] = Math.exp(logits[i] - largest);
  let left = random.uniform() * total;
  for (let i = 0; i < weights.length; i++) {
    left -= weights[i];
    if (left < 0) return i;
  }
  // Only rounding leads here.
  return weights.findLastIndex((weight) => weight > 0);
}
