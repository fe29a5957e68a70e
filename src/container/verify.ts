/** Checks every byte of a PocketLLM folder against its manifest, and reports all that is wrong (Node only). */
import { readdir } from "node:fs/promises";
import { quote } from "../checkpoint/json.js";
import { SafetensorsFile } from "../checkpoint/safetensors.js";
import { InputError, throwIfAborted } from "../errors.js";
import type { OnProgress } from "../progress.js";
import { hashRange } from "./disk.js";
import { checkShard, missingTensor, openListed, PocketFolder, readManifest } from "./folder.js";
import { folderOnDisk } from "./folder-on-disk.js";
import { MANIFEST_FILE } from "./manifest.js";

export interface Verification {
  /** Files that match, the manifest included. */
  readonly files: readonly string[];
  /** Tensors that match. */
  readonly tensors: readonly string[];
  /** One line for each thing that is wrong; empty for a sound folder. */
  readonly problems: readonly string[];
  /** Files beside the model that the manifest does not list, such as a README: not checked, not wrong. */
  readonly unlisted: readonly string[];
}

/**
 * Reads every listed file up to three times: files, tensors, layers. An unusable manifest is the only problem reported, since nothing can
 * be checked without it; a weight file that the manifest does not list is a problem, as its bytes would count.
 */
export async function verifyFolder(
  path: string,
  options: { readonly signal?: AbortSignal | undefined; readonly onProgress?: OnProgress | undefined } = {},
): Promise<Verification> {
  const { signal, onProgress } = options;
  const source = folderOnDisk(path);
  const files: string[] = [];
  const tensors: string[] = [];
  const problems: string[] = [];
  const unlisted: string[] = [];
  /** Runs a check; what it throws as the user's error is a problem, and the next check follows. */
  const attempt = async <T>(check: () => Promise<T>): Promise<T | undefined> => {
    throwIfAborted(signal);
    try {
      return await check();
    } catch (error) {
      throwIfAborted(signal);
      if (!(error instanceof InputError)) throw error;
      problems.push(error.message);
      return undefined;
    }
  };
  try {
    const manifest = await attempt(() => readManifest(source));
    if (!manifest) return { files, tensors, problems, unlisted };
    files.push(MANIFEST_FILE);
    const total = [...manifest.files.values()].reduce((sum, file) => sum + file.bytes, 0);
    const shards = new Map<string, SafetensorsFile>();
    let done = 0;
    for (const [file, listed] of manifest.files) {
      const { bytes, sha256 } = listed;
      onProgress?.({ stage: "verifying", done, total, detail: file });
      const opened = await attempt(() => openListed(source, file, listed));
      done += bytes;
      if (!opened) continue;
      const sound = (await hashRange(opened, 0, opened.size, signal)) === sha256;
      if (sound) files.push(file);
      // A shard is looked into also when it matches: what the manifest says of its tensors may not.
      const found = problems.length;
      if (file.endsWith(".safetensors"))
        await attempt(async () => {
          const shard = await SafetensorsFile.open(opened);
          shards.set(file, shard);
          checkShard(manifest, file, shard);
          for (const [name, { offset, byteLength }] of shard.tensors) {
            if ((await hashRange(opened, offset, byteLength, signal)) === manifest.tensors.get(name)!.sha256)
              tensors.push(name);
            else
              problems.push(
                `${path}: tensor ${quote(name)} in ${file} does not match its SHA-256; copy the folder again`,
              );
          }
        });
      if (!sound && problems.length === found)
        problems.push(`${opened.name}: does not match its SHA-256; copy the folder again`);
    }
    const missing = missingTensor(manifest, shards);
    if (missing) problems.push(missing.message);
    for (const file of await readdir(path)) {
      if (file === MANIFEST_FILE || manifest.files.has(file)) continue;
      if (/\.(safetensors|bin|gguf)$/.test(file))
        problems.push(`${path}: ${file} is a weight file that ${MANIFEST_FILE} does not list`);
      else unlisted.push(file);
    }
    // What remains is whether it all makes a model: configuration, shapes, codec parameters.
    if (problems.length === 0)
      await attempt(async () => {
        const folder = await PocketFolder.open(folderOnDisk(path));
        try {
          for (const layer of folder.layers.keys()) await attempt(() => folder.coded(layer));
          for (const name of folder.plainNames) await attempt(() => folder.plain(name));
          await attempt(() => folder.adapter());
        } finally {
          await folder.close();
        }
      });
    onProgress?.({ stage: "verifying", done: total, total });
    return { files, tensors, problems, unlisted };
  } finally {
    await source.close();
  }
}
