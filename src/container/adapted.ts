/**
 * A PocketLLM folder with an adapter: the files of the folder that it is for, the adapter's two, and a manifest
 * of all (Node only). Every byte that is copied is checked on the way.
 */
import { createHash } from "node:crypto";
import { mkdir, rename, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { Adapter } from "../adapter/adapter.js";
import {
  ADAPTER_CONFIG,
  ADAPTER_WEIGHTS,
  type AdapterConfig,
  writeAdapterConfig,
} from "../adapter/peft-config.js";
import { adapterTensors } from "../adapter/stored.js";
import { FileSource } from "../checkpoint/file-source.js";
import { syncFolder, writeAtomically, writeSafetensors } from "../checkpoint/safetensors-write.js";
import { CorruptFileError, throwIfAborted } from "../errors.js";
import { WEIGHT_METADATA } from "./build.js";
import { CHUNK_BYTES, reportFullDisk, sha256 } from "./disk.js";
import type { PocketFolder } from "./folder.js";
import { prettyJson } from "./json.js";
import {
  type FileEntry,
  MANIFEST_FILE,
  type Provenance,
  type TensorEntry,
  writeManifest,
} from "./manifest.js";
import { FolderWriter } from "./writer.js";

export interface WriteAdaptedOptions {
  readonly out: string;
  /** Without an adapter. */
  readonly folder: PocketFolder;
  /** Where `folder` lies. */
  readonly path: string;
  readonly config: AdapterConfig;
  readonly pairs: Adapter["pairs"];
  readonly provenance: Provenance;
  readonly signal?: AbortSignal | undefined;
}

/** Writes under a temporary name, then renames. Returns the bytes of all weight files. */
export async function writeAdapted(options: WriteAdaptedOptions): Promise<number> {
  const { out } = options;
  const partial = `${resolve(out)}.partial`;
  await FolderWriter.check(out, true);
  await rm(partial, { recursive: true, force: true });
  return await reportFullDisk(partial, async () => {
    await mkdir(partial, { recursive: true });
    const weightBytes = await writeFiles(partial, options);
    await rename(partial, resolve(out));
    await syncFolder(dirname(resolve(out)));
    return weightBytes;
  });
}

async function writeFiles(
  target: string,
  { folder, path, config, pairs, provenance, signal }: WriteAdaptedOptions,
): Promise<number> {
  const { manifest } = folder;
  const files = new Map<string, FileEntry>();
  for (const [name, entry] of manifest.files) {
    await copyFile(join(path, name), join(target, name), entry, signal);
    files.set(name, entry);
  }
  const json = prettyJson(writeAdapterConfig(config));
  files.set(ADAPTER_CONFIG, await writeAtomically(join(target, ADAPTER_CONFIG), (write) => write(json)));
  const stored = adapterTensors(pairs, config.bits);
  const written = await writeSafetensors({
    path: join(target, ADAPTER_WEIGHTS),
    tensors: stored.map(({ data, ...entry }) => ({ ...entry, data: () => data })),
    metadata: WEIGHT_METADATA,
    signal,
  });
  files.set(ADAPTER_WEIGHTS, written);
  const tensors = new Map<string, TensorEntry>(manifest.tensors);
  for (const { name, dtype, shape, data } of stored)
    tensors.set(name, { file: ADAPTER_WEIGHTS, dtype, shape, bytes: data.byteLength, sha256: sha256(data) });
  const { bits } = config;
  const bytes = await writeManifest({ ...manifest, provenance, adapter: { bits }, files, tensors }, sha256);
  await writeAtomically(join(target, MANIFEST_FILE), (write) => write(bytes));
  return folder.weightBytes + written.bytes;
}

async function copyFile(
  from: string,
  to: string,
  { bytes, sha256: expected }: FileEntry,
  signal: AbortSignal | undefined,
): Promise<void> {
  const source = await FileSource.open(from);
  try {
    const hash = createHash("sha256");
    await writeAtomically(to, async (write) => {
      for (let done = 0; done < bytes; done += CHUNK_BYTES) {
        throwIfAborted(signal);
        const piece = await source.read(done, Math.min(CHUNK_BYTES, bytes - done));
        hash.update(piece);
        await write(piece);
      }
    });
    if (hash.digest("hex") !== expected)
      throw new CorruptFileError(`${from}: does not match its SHA-256: it is damaged; copy the folder again`);
  } finally {
    await source.close();
  }
}
