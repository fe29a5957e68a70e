/** What `loadModel` takes, and how PocketLLM folders are opened from everything but a disk. */
import { PocketFolder } from "../container/folder.js";
import { folderAtUrl } from "../container/folder-at-url.js";
import { type FolderFiles, folderOfFiles } from "../container/folder-of-files.js";
import { UsageError } from "../errors.js";
import type { LoadModelOptions, OpenedModel } from "./assemble.js";
import { folderSource } from "./folder-weights.js";

/**
 * A model: a path (Node), the URL of a PocketLLM folder (in a page also relative to it), or the folder's files:
 * those of an `<input type="file" webkitdirectory>`, or bytes and Blobs by name.
 */
export type ModelSource = string | URL | Iterable<File> | FolderFiles;

/** A folder on a web server. `http:` and `https:` only. */
export async function openUrl(url: URL, options: LoadModelOptions): Promise<OpenedModel> {
  if (url.protocol !== "http:" && url.protocol !== "https:")
    throw new UsageError(`${url.href}: is no http or https address`);
  const folder = await PocketFolder.open(await folderAtUrl(url, options));
  return { ...openedFolder(folder), reportsProgress: true };
}

/** A folder whose files are at hand. */
export async function openFiles(files: Iterable<File> | FolderFiles): Promise<OpenedModel> {
  const byName: FolderFiles =
    files instanceof Map
      ? files
      : new Map(Array.from(files as Iterable<File>, (file) => [file.name, file] as const));
  return openedFolder(await PocketFolder.open(folderOfFiles(byName)));
}

export function openedFolder(folder: PocketFolder): OpenedModel {
  return {
    source: folder.name,
    config: folder.config,
    tokenizer: () => folder.tokenizer(),
    weights: (backend) => folderSource(backend, folder),
    close: () => folder.close(),
  };
}
