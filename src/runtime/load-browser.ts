/** Models in a browser: from a URL, or from files that the user chose. */
import { assembleModel, type LoadModelOptions } from "./assemble.js";
import type { LoadedModel } from "./loaded-model.js";
import { type ModelSource, openFiles, openUrl } from "./source.js";

/**
 * Loads a PocketLLM folder, ready to run. Weights go to WebAssembly memory while they arrive, tensor by tensor,
 * each against its hash; coded weights stay coded. Threads need a cross-origin isolated page, without it there
 * is one. InputError, one line, when the model cannot be loaded. Close it when done: it owns threads.
 */
export async function loadModel(source: ModelSource, options: LoadModelOptions = {}): Promise<LoadedModel> {
  return await assembleModel(
    () =>
      typeof source === "string" || source instanceof URL
        ? openUrl(new URL(source, pageAddress()), options)
        : openFiles(source),
    options,
  );
}

/** What a relative address is relative to: the document, or a worker's script. */
function pageAddress(): string {
  return typeof document === "undefined" ? location.href : document.baseURI;
}
