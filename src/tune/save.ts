/** A tuned model written as a PocketLLM folder: everything of the folder it came from, with trained numbers. */
import { createHash } from "node:crypto";
import type { PocketFolder } from "../container/folder.js";
import { codedEntries, type JsonObject } from "../container/manifest.js";
import { FolderWriter } from "../container/writer.js";
import type { OnProgress } from "../progress.js";
import type { CodedModel } from "./coded-model.js";
import { tunedProvenance } from "./run.js";

export interface SaveOptions {
  readonly out: string;
  readonly folder: PocketFolder;
  readonly model: CodedModel;
  /** How it was tuned: options, data files with their hashes, results. */
  readonly tuning: JsonObject;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** Returns the bytes of the weight files. */
export async function saveTuned(options: SaveOptions): Promise<number> {
  const { out, folder, model, tuning, signal, onProgress } = options;
  const provenance = tunedProvenance(folder, tuning);
  const writer = await FolderWriter.open(out, {
    resume: true,
    fingerprint: createHash("sha256").update(JSON.stringify(provenance)).digest("hex"),
  });
  for (const [name, layer] of model.codedLayers()) if (!writer.has(name)) await writer.putCoded(name, layer);
  const norms = model.norms();
  for (const name of folder.plainNames) {
    const { shape } = folder.manifest.tensors.get(name)!;
    if (!writer.has(name)) await writer.putPlain(name, norms.get(name) ?? (await folder.plain(name)), shape);
  }
  const { weightBytes } = await writer.finish({
    config: folder.huggingFaceConfig,
    tokenizerFiles: await folder.tokenizer(),
    generationConfig: folder.generationConfig,
    provenance,
    order: storedOrder(folder),
    signal,
    onProgress,
  });
  return weightBytes;
}

/** Names of layers and plain tensors as they lie in the folder's files. */
function storedOrder(folder: PocketFolder): string[] {
  const owner = new Map<string, string>();
  for (const [layer, entry] of folder.layers)
    for (const { names } of codedEntries(layer, entry)) for (const name of names) owner.set(name, layer);
  const order = [...folder.manifest.tensors.keys()].map((name) => owner.get(name) ?? name);
  return [...new Set(order)];
}
