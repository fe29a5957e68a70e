/** What the writing side asks of Node's file system beyond whole files: hashes, existence, a full disk. */
import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import type { ByteSource } from "../checkpoint/byte-source.js";
import { InputError, throwIfAborted } from "../errors.js";

/** Bytes read and hashed at a time: bounds memory whatever a tensor's size. */
export const CHUNK_BYTES = 4 * 2 ** 20;

export function sha256(bytes: Uint8Array | string): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** SHA-256 of a range of a file, read in chunks. */
export async function hashRange(
  file: ByteSource,
  offset: number,
  length: number,
  signal?: AbortSignal,
): Promise<string> {
  const hash = createHash("sha256");
  for (let done = 0; done < length; done += CHUNK_BYTES) {
    throwIfAborted(signal);
    hash.update(await file.read(offset + done, Math.min(CHUNK_BYTES, length - done)));
  }
  return hash.digest("hex");
}

export function errorCode(error: unknown): string | undefined {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : undefined;
}

export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (errorCode(error) === "ENOENT") return false;
    throw error;
  }
}

/** A folder as its user named it, but for slashes at the end: names beside it are made of this. */
export function withoutSlash(folder: string): string {
  return folder.replace(/[\\/]+$/, "");
}

/** Runs `write`; a full disk or quota becomes one line that says where the finished part is. */
export async function reportFullDisk<T>(partial: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (error) {
    const code = errorCode(error);
    if (code !== "ENOSPC" && code !== "EDQUOT") throw error;
    throw new InputError(
      `the disk is full: what is finished is kept in ${partial}; free some space and run again with --resume`,
      { cause: error },
    );
  }
}
