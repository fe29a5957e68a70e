/**
 * A model's name as its user gave it, as a path on disk. What exists here is meant; only else is `org/name` of the
 * hub, and only then is anything of the hub's loaded.
 */
import { stat } from "node:fs/promises";
import { parseModelId } from "./id.js";
import type { HubOptions } from "./repository.js";

export interface LocalModel {
  readonly path: string;
  /** Of a model of the hub: the commit that its files are of. */
  readonly commit?: string;
}

/**
 * `source` itself when it exists or is no name of the hub; else `org/name[@revision]` or
 * `org/name/file.gguf[@revision]`, downloaded. InputError, one line, when that fails.
 */
export async function localModel(source: string, options: HubOptions = {}): Promise<LocalModel> {
  if (await exists(source)) return { path: source };
  const id = parseModelId(source);
  if (id === null) return { path: source };
  const { fetchModel } = await import("./model.js");
  return await fetchModel(id, options);
}

/** What cannot be looked at (no permission, a link in a circle) is there, too: its opener says what is wrong. */
async function exists(path: string): Promise<boolean> {
  return await stat(path).then(
    () => true,
    (error: NodeJS.ErrnoException) =>
      !["ENOENT", "ENOTDIR", "ENAMETOOLONG", "ERR_INVALID_ARG_VALUE"].includes(error.code ?? ""),
  );
}
