/** An adapter's folder on disk, as PEFT or `tune` write it (Node only). */
import { join } from "node:path";
import type { ModelConfig } from "../checkpoint/config.js";
import { FileSource } from "../checkpoint/file-source.js";
import { hashSources } from "../checkpoint/hash.js";
import { parseJsonObject } from "../checkpoint/json.js";
import { SafetensorsFile } from "../checkpoint/safetensors.js";
import { CorruptFileError, InputError } from "../errors.js";
import type { Adapter } from "./adapter.js";
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS, parseAdapterConfig } from "./peft-config.js";
import { adapterLayout, readAdapter } from "./stored.js";

export const MAX_ADAPTER_CONFIG_BYTES = 2 ** 20;

export interface AdapterOnDisk extends Adapter {
  /** SHA-256 over both files, hex. */
  readonly sha256: string;
}

/** Reads the adapter in `folder` for `model`. InputError or CorruptFileError, one line, when it does not fit. */
export async function openAdapter(folder: string, model: ModelConfig): Promise<AdapterOnDisk> {
  const config = await openFile(folder, ADAPTER_CONFIG);
  try {
    if (config.size > MAX_ADAPTER_CONFIG_BYTES)
      throw new CorruptFileError(`${config.name}: has ${config.size} bytes, too many for such a file`);
    const json = parseJsonObject(await config.read(0, config.size), config.name);
    const parsed = parseAdapterConfig(json, config.name);
    const weights = await openFile(folder, ADAPTER_WEIGHTS);
    try {
      const file = await SafetensorsFile.open(weights);
      const layout = adapterLayout(parsed, file.tensors, model, weights.name);
      const adapter = await readAdapter(layout, (name) => file.readBytes(name));
      return { ...adapter, sha256: await hashSources([config, weights]) };
    } finally {
      await weights.close();
    }
  } finally {
    await config.close();
  }
}

/** SHA-256 over both files of an adapter's folder, hex. InputError where one is missing. */
export async function hashAdapter(folder: string): Promise<string> {
  const files: FileSource[] = [];
  try {
    for (const name of [ADAPTER_CONFIG, ADAPTER_WEIGHTS]) files.push(await openFile(folder, name));
    return await hashSources(files);
  } finally {
    for (const file of files) await file.close();
  }
}

async function openFile(folder: string, name: string): Promise<FileSource> {
  try {
    return await FileSource.open(join(folder, name));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== "ENOENT" && code !== "ENOTDIR") throw error;
    throw new InputError(`${folder}: has no ${name}: give the folder of a LoRA adapter in PEFT's form`);
  }
}
