/**
 * Sizes of a model by part, in bytes and bits a weight: of a PocketLLM folder, or of a checkpoint to compare
 * with (Node only). The ratio is the honest one: bytes of all weights in 16 bits (a tied matrix once, no file
 * header) over bytes of every weight file, headers included; tokenizer and manifest are listed apart.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { BLOCK_FORMATS } from "../checkpoint/gguf-blocks.js";
import { openCheckpoint } from "../checkpoint/open.js";
import { localModel } from "../hub/local-model.js";
import type { HubOptions } from "../hub/repository.js";
import { DTYPE_BYTES, type DType } from "../tensor/dtype.js";
import { exists } from "./disk.js";
import { elements, type PocketFolder } from "./folder.js";
import { codedEntries, MANIFEST_FILE } from "./manifest.js";
import { openFolder } from "./reader.js";

export interface PartSize {
  readonly name: PartName;
  /** Number of parameters; of an adapter its own, which are no part of the model's. */
  readonly weights: number;
  readonly bytes: number;
  /** 8 x bytes / weights; 0 for a part without weights. */
  readonly bitsPerWeight: number;
}

export interface MatrixSize {
  /** Tensor name, without ".weight" where it is coded. */
  readonly name: string;
  /** "trellis" or "meta" for coded matrices, a stored type such as "F16" or "Q4_1" for others. */
  readonly method: string;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly bitsPerWeight: number;
  /** For coded matrices: rows [start, end) of each tier with the bits a weight of all its stored tensors. */
  readonly tiers?: readonly { readonly rows: readonly [number, number]; readonly bitsPerWeight: number }[];
}

export interface Inspection {
  readonly format: "pocketllm" | Checkpoint["format"];
  readonly architecture: string;
  readonly parameters: number;
  /** Bytes of all weights in 16 bits: 2 x parameters. */
  readonly bytes16: number;
  /** Bytes of every weight file; for a checkpoint the bytes of its tensors alone. */
  readonly weightBytes: number;
  /** bytes16 / weightBytes */
  readonly ratio: number;
  /** 8 x weightBytes / parameters */
  readonly bitsPerWeight: number;
  /** Their bytes add up to weightBytes. */
  readonly parts: readonly PartSize[];
  readonly tensors: readonly MatrixSize[];
  /** Files of a PocketLLM folder, the manifest last; empty for a checkpoint. */
  readonly files: readonly { readonly name: string; readonly bytes: number }[];
}

const PART_NAMES = [
  "embedding and head",
  "attention",
  "feed-forward",
  "norms and biases",
  "adapter",
  "file headers",
] as const;
export type PartName = (typeof PART_NAMES)[number];

/** `source`: a PocketLLM folder, here or on the hub, or anything that openCheckpoint takes; else InputError. */
export async function inspectModel(source: string, options: HubOptions = {}): Promise<Inspection> {
  const { path } = await localModel(source, options);
  return (await exists(join(path, MANIFEST_FILE)))
    ? await inspectFolder(path)
    : await inspectCheckpoint(path);
}

export async function inspectFolder(path: string): Promise<Inspection> {
  const folder = await openFolder(path);
  try {
    const files = [...folder.manifest.files].map(([name, { bytes }]) => ({ name, bytes }));
    files.push({ name: MANIFEST_FILE, bytes: (await stat(join(path, MANIFEST_FILE))).size });
    return {
      format: "pocketllm",
      architecture: folder.config.architecture,
      ...summarise(folderTensors(folder), folder.weightBytes),
      files,
    };
  } finally {
    await folder.close();
  }
}

export async function inspectCheckpoint(source: string): Promise<Inspection> {
  const checkpoint = await openCheckpoint(source);
  try {
    const tensors = [...checkpoint.tensors.values()].map(({ name, shape, storedAs }) =>
      sizeOf(name, storedAs, shape, storedBytes(storedAs, elements(shape))),
    );
    const weightBytes = tensors.reduce((sum, { bytes }) => sum + bytes, 0);
    const { format, config } = checkpoint;
    return { format, architecture: config.architecture, ...summarise(tensors, weightBytes), files: [] };
  } finally {
    await checkpoint.close();
  }
}

function folderTensors(folder: PocketFolder): MatrixSize[] {
  const { tensors, layers } = folder.manifest;
  const coded = [...layers].map(([name, layer]) => {
    const parts = codedEntries(name, layer).map(({ entry, names }) => ({
      entry,
      bytes: names.reduce((sum, stored) => sum + tensors.get(stored)!.bytes, 0),
    }));
    const bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
    const method = parts[0].entry.method;
    let start = 0;
    const tiers = parts.map(({ entry, bytes }) => {
      const rows: [number, number] = [start, start + entry.rows];
      start = rows[1];
      return { rows, bitsPerWeight: (8 * bytes) / (entry.rows * entry.columns) };
    });
    return { ...sizeOf(name, method, [layer.rows, layer.columns], bytes), tiers };
  });
  const plain = folder.plainNames.map((name) => {
    const { dtype, shape, bytes } = tensors.get(name)!;
    return sizeOf(name, dtype, shape, bytes);
  });
  const adapter = folder.adapterMatrices.map(({ name, shape, tensors: stored }) => {
    const bytes = stored.reduce((sum, tensor) => sum + tensors.get(tensor)!.bytes, 0);
    return sizeOf(name, tensors.get(stored[0])!.dtype, shape, bytes);
  });
  return [...coded, ...plain, ...adapter];
}

function sizeOf(name: string, method: string, shape: readonly number[], bytes: number): MatrixSize {
  return { name, method, shape, bytes, bitsPerWeight: (8 * bytes) / elements(shape) };
}

function storedBytes(storedAs: string, count: number): number {
  const block = BLOCK_FORMATS.get(storedAs);
  return block ? (count / block.weights) * block.bytes : count * DTYPE_BYTES[storedAs as DType];
}

function summarise(tensors: readonly MatrixSize[], weightBytes: number) {
  const sums = new Map(PART_NAMES.map((name) => [name, { weights: 0, bytes: 0 }]));
  for (const { name, shape, bytes } of tensors) {
    const sum = sums.get(partOf(name))!;
    sum.weights += elements(shape);
    sum.bytes += bytes;
  }
  const tensorBytes = tensors.reduce((sum, { bytes }) => sum + bytes, 0);
  sums.get("file headers")!.bytes = weightBytes - tensorBytes;
  const parameters = [...sums].reduce(
    (sum, [name, { weights }]) => sum + (name === "adapter" ? 0 : weights),
    0,
  );
  const bytes16 = 2 * parameters;
  const parts = [...sums]
    .filter(([, { bytes }]) => bytes > 0)
    .map(([name, sum]) => ({ name, ...sum, bitsPerWeight: sum.weights && (8 * sum.bytes) / sum.weights }));
  return {
    parameters,
    bytes16,
    weightBytes,
    ratio: bytes16 / weightBytes,
    bitsPerWeight: (8 * weightBytes) / parameters,
    parts,
    tensors,
  };
}

function partOf(name: string): PartName {
  if (name.includes(".lora_")) return "adapter";
  if (/\.bias$|norm\.weight$/.test(name)) return "norms and biases";
  if (name.includes(".self_attn.")) return "attention";
  if (name.includes(".mlp.")) return "feed-forward";
  return "embedding and head";
}
