/** Files as byte sources (Node only), opened read-only and read by position. */
import { constants, type FileHandle, open, stat } from "node:fs/promises";
import { CorruptFileError, InputError } from "../errors.js";
import { type ByteSource, checkRange } from "./byte-source.js";

/** A file as a ByteSource; `close` it when done. */
export class FileSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #handle: FileHandle;

  private constructor(path: string, size: number, handle: FileHandle) {
    this.name = path;
    this.size = size;
    this.#handle = handle;
  }

  /** InputError when `path` is not a regular file: a named pipe would block for ever, a device has no size. */
  static async open(path: string): Promise<FileSource> {
    if (!(await stat(path)).isFile()) throw new InputError(`${path}: is not a regular file`);
    // O_NONBLOCK: should the path become a pipe after the check, opening it does not wait for a writer.
    const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const stats = await handle.stat();
      if (!stats.isFile()) throw new InputError(`${path}: is not a regular file`);
      return new FileSource(path, stats.size, handle);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    checkRange(this.name, this.size, offset, length);
    const bytes = new Uint8Array(allocate(length));
    for (let done = 0; done < length; ) {
      const { bytesRead } = await this.#handle.read(bytes, done, length - done, offset + done);
      if (bytesRead === 0) throw new CorruptFileError(`${this.name}: became shorter while it was read`);
      done += bytesRead;
    }
    return bytes;
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** From here on a buffer has pages of its own. */
const OWN_PAGES = 2 ** 16;

/**
 * A resizable buffer lies in pages of its own, which go back to the system when it is collected; others in malloc's
 * heap, which keeps them: 11 MB resident after loading SmolLM2-135M at 10x.
 */
function allocate(length: number): ArrayBuffer {
  return length < OWN_PAGES ? new ArrayBuffer(length) : new ArrayBuffer(length, { maxByteLength: length });
}
