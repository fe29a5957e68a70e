/** A folder on disk as a FolderSource (Node only). */
import { join } from "node:path";
import { FileSource } from "../checkpoint/file-source.js";
import { ReadAhead } from "../checkpoint/read-ahead.js";
import { errorCode, sha256 } from "./disk.js";
import type { FolderSource } from "./folder-source.js";

/** Files stay open until `close`. */
export function folderOnDisk(path: string): FolderSource {
  const opened: FileSource[] = [];
  return {
    name: path,
    sha256,
    async open(file) {
      try {
        const source = await FileSource.open(join(path, file));
        opened.push(source);
        return file.endsWith(".safetensors") ? new ReadAhead(source) : source;
      } catch (error) {
        if (errorCode(error) === "ENOENT") return null;
        throw error;
      }
    },
    async close() {
      for (const source of opened.splice(0)) await source.close();
    },
  };
}
