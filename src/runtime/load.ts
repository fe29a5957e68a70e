/** Models in Node: on disk by path, on the hub by name, and all that a browser can load too. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { openAdapter } from "../adapter/open.js";
import { openCheckpoint } from "../checkpoint/open.js";
import { openFolder } from "../container/reader.js";
import { localModel } from "../hub/local-model.js";
import { denseSource } from "../transformer/weights.js";
import { withAdapter } from "./adapted-weights.js";
import { assembleModel, type LoadModelOptions, type OpenedModel } from "./assemble.js";
import { withLeanHeap } from "./lean-heap.js";
import type { LoadedModel } from "./loaded-model.js";
import { type ModelSource, openedFolder, openFiles, openUrl } from "./source.js";

/**
 * Loads a Hugging Face folder, a `.gguf` file, a llama2.c `.bin` file or a PocketLLM folder, ready to run, or where
 * there is no such path, `org/name[@revision]` of the hub (`localModel`); a PocketLLM folder may also be given as a
 * URL or as its files. Coded weights stay coded in memory. InputError, one line, when that is not possible. Close
 * the model when done: it owns threads.
 */
export async function loadModel(
  source: ModelSource,
  { adapter, ...options }: LoadInNodeOptions = {},
): Promise<LoadedModel> {
  const open = async () => {
    const opened = await openModel(source, options);
    return adapter === undefined ? opened : await adapted(opened, adapter);
  };
  return await withLeanHeap(() => assembleModel(open, options));
}

export interface LoadInNodeOptions extends LoadModelOptions {
  /** The folder of a LoRA adapter in PEFT's form, used on top of the model and of an adapter that it has. */
  readonly adapter?: string | undefined;
}

async function adapted(opened: OpenedModel, folder: string): Promise<OpenedModel> {
  try {
    const adapter = await openAdapter(folder, opened.config);
    return {
      ...opened,
      weights: async (backend) => withAdapter(backend, await opened.weights(backend), adapter),
    };
  } catch (error) {
    await opened.close();
    throw error;
  }
}

async function openModel(source: ModelSource, options: LoadModelOptions): Promise<OpenedModel> {
  if (source instanceof URL)
    return source.protocol === "file:"
      ? await openPath(fileURLToPath(source), options)
      : await openUrl(source, options);
  if (typeof source !== "string") return await openFiles(source);
  return /^https?:\/\//.test(source)
    ? await openUrl(new URL(source), options)
    : await openPath(source, options);
}

async function openPath(source: string, options: LoadModelOptions): Promise<OpenedModel> {
  const { path } = await localModel(source, options);
  if (await exists(join(path, "pocketllm.json"))) return openedFolder(await openFolder(path));
  const checkpoint = await openCheckpoint(path);
  return {
    source,
    config: checkpoint.config,
    tokenizer: () => checkpoint.tokenizer(),
    weights: (backend) => denseSource(backend, checkpoint),
    close: () => checkpoint.close(),
  };
}

async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    () => false,
  );
}
