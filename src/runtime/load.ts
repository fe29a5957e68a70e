/** Models on disk, by path (Node only). */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { openAdapter } from "../adapter/open.js";
import { openCheckpoint } from "../checkpoint/open.js";
import { openFolder } from "../container/reader.js";
import { denseSource } from "../transformer/weights.js";
import { withAdapter } from "./adapted-weights.js";
import { assembleModel, type LoadModelOptions, type OpenedModel } from "./assemble.js";
import { folderSource } from "./folder-weights.js";
import type { LoadedModel } from "./model.js";

/**
 * Loads a Hugging Face folder, a `.gguf` file, a llama2.c `.bin` file or a PocketLLM folder, ready to run.
 * Coded weights stay coded in memory. InputError, one line, when that is not possible. Close the model when
 * done: it owns threads.
 */
export async function loadModel(
  source: string,
  { adapter, ...options }: LoadFromDiskOptions = {},
): Promise<LoadedModel> {
  const opened = await openModel(source);
  return await assembleModel(adapter === undefined ? opened : await adapted(opened, adapter), options);
}

export interface LoadFromDiskOptions extends LoadModelOptions {
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

async function openModel(source: string): Promise<OpenedModel> {
  if (await exists(join(source, "pocketllm.json"))) {
    const folder = await openFolder(source);
    return {
      source,
      config: folder.config,
      tokenizer: () => folder.tokenizer(),
      weights: (backend) => folderSource(backend, folder),
      close: () => folder.close(),
    };
  }
  const checkpoint = await openCheckpoint(source);
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
