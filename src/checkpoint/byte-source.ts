/**
 * Where a weight file's bytes come from: anything of known size that can be read by range. Readers of
 * safetensors and GGUF are written against this, so that they run over files, Blobs and HTTP ranges alike.
 * The Node implementation is in file-source.ts.
 */
import { CorruptFileError } from "../errors.js";

export interface ByteSource {
  /** What messages call it: a path, a URL. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  /** Exactly `length` bytes from `offset`. Rejects with CorruptFileError when the source does not have them. */
  read(offset: number, length: number): Promise<Uint8Array>;
}

/** Bytes in memory as a source. `read` returns views, not copies. */
export function bytesSource(bytes: Uint8Array, name: string): ByteSource {
  return {
    name,
    size: bytes.byteLength,
    async read(offset, length) {
      checkRange(name, bytes.byteLength, offset, length);
      return bytes.subarray(offset, offset + length);
    },
  };
}

/** A Blob (in a browser: a file that the user chose) as a source. */
export function blobSource(blob: Blob, name: string): ByteSource {
  return {
    name,
    size: blob.size,
    async read(offset, length) {
      checkRange(name, blob.size, offset, length);
      return new Uint8Array(await blob.slice(offset, offset + length).arrayBuffer());
    },
  };
}

/** Throws CorruptFileError unless bytes offset .. offset + length - 1 exist. */
export function checkRange(name: string, size: number, offset: number, length: number): void {
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(length) || offset < 0 || length < 0)
    throw new RangeError(`impossible byte range ${offset} + ${length}`);
  if (offset + length > size)
    throw new CorruptFileError(
      `${name}: ends at byte ${size}, but bytes ${offset} to ${offset + length} are needed; the file is cut short: get it again`,
    );
}
