/** Files in memory or chosen by the user (`<input type="file" webkitdirectory>`) as a FolderSource. */
import { blobSource, bytesSource } from "../checkpoint/byte-source.js";
import type { FolderSource } from "./folder-source.js";
import { portableSha256 } from "./sha256.js";

/** The files of a folder by name, without directories. */
export type FolderFiles = ReadonlyMap<string, Uint8Array | Blob>;

export function folderOfFiles(files: FolderFiles): FolderSource {
  return {
    name: "the files given",
    sha256: portableSha256,
    async open(name) {
      const file = files.get(name);
      if (file === undefined) return null;
      return file instanceof Uint8Array ? bytesSource(file, name) : blobSource(file, name);
    },
    async close() {},
  };
}
