/** Opening a PocketLLM folder on disk (Node only). */
import { InputError } from "../errors.js";
import type { OnProgress } from "../progress.js";
import { PocketFolder } from "./folder.js";
import { folderOnDisk } from "./folder-on-disk.js";
import { verifyFolder } from "./verify.js";

export interface OpenFolderOptions {
  /** Check the hash of every file first. Default false: each tensor is checked when it is read. */
  readonly verify?: boolean;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** Opens the PocketLLM folder at `path`. Throws InputError or CorruptFileError, one line. */
export async function openFolder(path: string, options: OpenFolderOptions = {}): Promise<PocketFolder> {
  if (options.verify) {
    const { problems } = await verifyFolder(path, options);
    if (problems.length > 0)
      throw new InputError(
        `${problems[0]}${problems.length > 1 ? ` (and ${problems.length - 1} more)` : ""}`,
      );
  }
  return await PocketFolder.open(folderOnDisk(path));
}
