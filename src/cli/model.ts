/** MODEL of the commands: a path, or a name on the hub. */
import { type LocalModel, localModel } from "../hub/local-model.js";
import type { CommandContext } from "./command.js";

/** For `--help`. */
export const MODEL =
  "Hugging Face or PocketLLM folder, .gguf file, llama2.c .bin file, or org/name[@revision] on the hub";

/** A model of the hub is downloaded first, once for all that the command does with it. */
export async function findModel(
  source: string,
  { signal, onProgress, log: onNote }: CommandContext,
): Promise<LocalModel> {
  return await localModel(source, { signal, onProgress, onNote });
}
