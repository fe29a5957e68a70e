/** Where the files of a PocketLLM folder come from: a disk, a web server, files that the user chose. */
import type { ByteSource } from "../checkpoint/byte-source.js";
import type { FileEntry, Sha256 } from "./manifest.js";

export interface FolderSource {
  /** What messages call it: a path, a URL. */
  readonly name: string;
  /**
   * A file of the folder, or null when it is not there. Called once for each file that is needed, the manifest
   * first and alone without `listed`: what the manifest says of the file.
   */
  open(file: string, listed?: FileEntry): Promise<ByteSource | null>;
  readonly sha256: Sha256;
  close(): Promise<void>;
}
