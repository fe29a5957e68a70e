/**
 * Writing a safetensors file (Node only): one tensor in memory at a time, under a temporary name that is
 * flushed to disk and renamed when complete, so that a file of the final name is always whole.
 */
import { createHash } from "node:crypto";
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { throwIfAborted } from "../errors.js";
import { buildSafetensorsHeader, type SafetensorsEntry, tensorBytes } from "./safetensors.js";

export interface TensorToWrite extends SafetensorsEntry {
  /** Called once, when its turn comes: the little-endian bytes, whole or in pieces. */
  data(): TensorData | Promise<TensorData>;
}

export type TensorData = Uint8Array | AsyncIterable<Uint8Array> | Iterable<Uint8Array>;

export interface WriteSafetensorsOptions {
  readonly path: string;
  /** Written in this order. */
  readonly tensors: readonly TensorToWrite[];
  /** The header's `__metadata__`. */
  readonly metadata?: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
}

export interface WrittenFile {
  readonly bytes: number;
  /** Hex. */
  readonly sha256: string;
}

/**
 * Writes `path` atomically; an existing file is replaced. On failure or abort the temporary file is removed.
 * RangeError when a tensor's data are not as long as its shape and dtype say.
 */
export async function writeSafetensors(options: WriteSafetensorsOptions): Promise<WrittenFile> {
  const { path, tensors, metadata, signal } = options;
  const header = buildSafetensorsHeader(tensors, metadata);
  return await writeAtomically(path, async (write) => {
    await write(header);
    for (const tensor of tensors) {
      throwIfAborted(signal);
      const data = await tensor.data();
      let bytes = 0;
      for await (const piece of data instanceof Uint8Array ? [data] : data) {
        throwIfAborted(signal);
        bytes += piece.byteLength;
        await write(piece);
      }
      const expected = tensorBytes(tensor.dtype, tensor.shape);
      if (bytes !== expected)
        throw new RangeError(
          `safetensors: ${tensor.name} gave ${bytes} bytes where its shape takes ${expected}`,
        );
    }
  });
}

/**
 * Runs `produce` against a temporary file beside `path`, then flushes, renames and flushes the folder's entry.
 * Returns size and SHA-256 of what was written.
 */
export async function writeAtomically(
  path: string,
  produce: (write: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<WrittenFile> {
  const temporary = `${path}.partial`;
  const hash = createHash("sha256");
  let size = 0;
  const handle = await open(temporary, "w");
  try {
    try {
      await produce(async (bytes) => {
        hash.update(bytes);
        size += bytes.byteLength;
        await writeAll(handle, bytes);
      });
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncFolder(dirname(path));
  return { bytes: size, sha256: hash.digest("hex") };
}

async function writeAll(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const { bytesWritten } = await handle.write(bytes, done, bytes.byteLength - done);
    done += bytesWritten;
  }
}

/** A rename is only durable once the folder itself is flushed. Windows cannot open folders: nothing to do there. */
export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === "win32") return;
  const handle = await open(folder, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
