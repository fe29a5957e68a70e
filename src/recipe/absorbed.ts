/**
 * What training for the coded embedding gives, on disk until the model is whole: its tensors in one file and, written
 * last, a record of what they belong to and their hash.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { FileSource } from "../checkpoint/file-source.js";
import { parseJsonObject } from "../checkpoint/json.js";
import { overlay } from "../checkpoint/overlay.js";
import { SafetensorsFile } from "../checkpoint/safetensors.js";
import { writeAtomically, writeSafetensors } from "../checkpoint/safetensors-write.js";
import { exists, hashRange, reportFullDisk } from "../container/disk.js";
import { JsonField, prettyJson } from "../container/json.js";
import { CorruptFileError, UsageError } from "../errors.js";
import { f32ToBytes } from "../tensor/dtype.js";
import type { DenseModel } from "../train/dense-model.js";
import type { StateIdentity } from "../training/state.js";

const TENSORS = "layers.safetensors";
const RECORD = "layers.json";

export interface AbsorbReport {
  readonly steps: number;
  readonly tokens: number;
  /** Divergence from the original on held-out text with nothing but the embedding coded, nats a token. */
  readonly heldOutBefore: number;
  readonly heldOutAfter: number;
}

export async function isAbsorbed(folder: string): Promise<boolean> {
  return await exists(join(folder, RECORD));
}

/** Writes what `model` has learnt. InputError when the disk is full. */
export async function writeAbsorbed(
  folder: string,
  identity: StateIdentity,
  report: AbsorbReport,
  model: DenseModel,
  signal: AbortSignal | undefined,
): Promise<void> {
  const path = join(folder, TENSORS);
  const tensors = model.tensors
    .filter(({ learns }) => learns)
    .map(({ name, shape, read }) => ({
      ...{ name, shape, dtype: "F32" as const },
      data: async () => f32ToBytes(await read(), "F32"),
    }));
  await reportFullDisk(folder, async () => {
    const { sha256 } = await writeSafetensors({ path, tensors, signal });
    const record = prettyJson({ ...identity, report, sha256 });
    await writeAtomically(join(folder, RECORD), (write) => write(record));
  });
}

/**
 * `checkpoint` with the tensors in `folder` in place of its own; closing it leaves `checkpoint` open. UsageError when
 * they belong to another model or other options, CorruptFileError when they are damaged.
 */
export async function openAbsorbed(
  folder: string,
  { model, options }: StateIdentity,
  checkpoint: Checkpoint,
  signal: AbortSignal | undefined,
): Promise<{ readonly source: Checkpoint; readonly report: AbsorbReport }> {
  const path = join(folder, RECORD);
  const record = new JsonField(parseJsonObject(await readFile(path), path), `${path}:`);
  if (record.get("model").value !== model || record.get("options").value !== options)
    throw new UsageError(`${folder} is of a run with other options: give the same ones, or delete it`);
  const file = await FileSource.open(join(folder, TENSORS));
  try {
    if ((await hashRange(file, 0, file.size, signal)) !== record.get("sha256").value)
      throw new CorruptFileError(`${file.name} is damaged: delete ${folder} and start again`);
    const tensors = await SafetensorsFile.open(file);
    const source = overlay(checkpoint, {
      read: (name) => (tensors.tensors.has(name) ? tensors.readF32(name) : checkpoint.read(name)),
      close: () => file.close(),
    });
    return { source, report: record.get("report").object() as unknown as AbsorbReport };
  } catch (error) {
    await file.close();
    throw error;
  }
}
