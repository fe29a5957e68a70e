/** Where the files of a PocketLLM folder come from: a folder on disk (reader.ts), later a cache or a URL. */
import type { ByteSource } from "../checkpoint/byte-source.js";
import type { Sha256 } from "./manifest.js";

export interface FolderSource {
  /** What messages call it: a path, a URL. */
  readonly name: string;
  /** A file of the folder, or null when it is not there. Called once for each file that is needed. */
  open(file: string): Promise<ByteSource | null>;
  readonly sha256: Sha256;
  close(): Promise<void>;
}
