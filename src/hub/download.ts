/**
 * One file of the hub into the cache. It is written under a name of its own, gets the blob's name only when size
 * and hash are what the hub lists, and goes on where an interrupted download ended. Not the library's
 * downloadFileToCacheDir: that checks neither size nor hash, cannot be stopped or gone on with, and prints.
 */
import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { CorruptFileError } from "../errors.js";
import { formatId } from "./id.js";
import { type Asking, HubUnreachableError, pieces, request } from "./request.js";

export interface RemoteFile {
  /** Below the repository, parts divided by "/"; stays inside of it. */
  readonly path: string;
  readonly bytes: number;
  /** SHA-256 of large files, which lie in LFS or Xet; of others git's hash of a blob. */
  readonly hash: { readonly kind: "sha256" | "git"; readonly hex: string };
}

export interface Downloading extends Asking {
  readonly commit: string;
  readonly onBytes: (count: number) => void;
}

/** Tries of a file whose connection breaks on the way; each goes on where the last ended. */
const MAX_BREAKS = 5;

/** Makes `blob` from the hub's file. CorruptFileError when its bytes are not those that the hub lists. */
export async function downloadFile(file: RemoteFile, blob: string, downloading: Downloading): Promise<void> {
  await mkdir(dirname(blob), { recursive: true });
  const part = await takePart(blob);
  let whole = false;
  try {
    let kept = await sizeOf(part);
    if (kept > file.bytes) kept = await removed(part);
    downloading.onBytes(kept);
    await fetchRest(file, part, downloading);
    if ((await hashOf(file, part, downloading.signal)) !== file.hash.hex) {
      await rm(part, { force: true });
      // What was kept of another download may be what is wrong.
      if (kept > 0) {
        downloading.onBytes(-file.bytes);
        await fetchRest(file, part, downloading);
      }
      if (kept === 0 || (await hashOf(file, part, downloading.signal)) !== file.hash.hex) {
        await rm(part, { force: true });
        throw new CorruptFileError(
          `${formatId(downloading.id)}: ${file.path} does not match the ${file.hash.kind === "git" ? "hash" : "SHA-256"} that the hub lists: damaged on the way; run again`,
        );
      }
    }
    await rename(part, blob);
    whole = true;
  } finally {
    // Free for the next run to go on with.
    if (!whole) await rename(part, `${blob}${FREE}`).catch(() => {});
  }
}

async function fetchRest(file: RemoteFile, part: string, downloading: Downloading): Promise<void> {
  const handle = await open(part, "a");
  try {
    let done = (await handle.stat()).size;
    for (let breaks = 0; done < file.bytes; ) {
      const before = done;
      try {
        done = await fetchFrom(done, file, handle, downloading);
      } catch (error) {
        if (!(error instanceof HubUnreachableError)) throw error;
        done = (await handle.stat()).size;
        if (done === before || ++breaks >= MAX_BREAKS) throw error;
        continue;
      }
      if (done < file.bytes && (done === before || ++breaks >= MAX_BREAKS))
        throw new HubUnreachableError(
          `${formatId(downloading.id)}: the download of ${file.path} ended after ${done} of ${file.bytes} bytes; run again to go on`,
        );
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Bytes in the file after one request; a server that knows no ranges sends what is there again, to be skipped. */
async function fetchFrom(
  start: number,
  file: RemoteFile,
  handle: FileHandle,
  downloading: Downloading,
): Promise<number> {
  const { settings, id, commit } = downloading;
  const path = file.path.split("/").map(encodeURIComponent).join("/");
  const url = `${settings.endpoint}/${id.type === "model" ? "" : "datasets/"}${id.name}/resolve/${commit}/${path}`;
  const response = await request(downloading, url, {
    "accept-encoding": "identity",
    ...(start > 0 && { range: `bytes=${start}-` }),
  });
  const asked = new RegExp(`^bytes ${start}-`).test(response.headers.get("content-range") ?? "");
  let skip = response.status === 206 && asked ? 0 : start;
  let done = start;
  for await (const piece of pieces(downloading, response)) {
    const fresh = piece.subarray(Math.min(skip, piece.length));
    skip -= piece.length - fresh.length;
    if (done + fresh.length > file.bytes)
      throw new CorruptFileError(
        `${formatId(id)}: ${file.path} has more than the ${file.bytes} bytes that the hub lists`,
      );
    await handle.writeFile(fresh);
    done += fresh.length;
    downloading.onBytes(fresh.length);
  }
  return done;
}

async function hashOf(
  { bytes, hash: { kind } }: RemoteFile,
  path: string,
  signal: AbortSignal | undefined,
): Promise<string> {
  const hash: Hash = createHash(kind === "git" ? "sha1" : "sha256");
  if (kind === "git") hash.update(`blob ${bytes}\0`);
  for await (const piece of createReadStream(path, { highWaterMark: 2 ** 20 })) {
    signal?.throwIfAborted();
    hash.update(piece as Buffer);
  }
  return hash.digest("hex");
}

const FREE = ".pocketllm.incomplete";
let parts = 0;

/**
 * A name for the bytes on their way that no other download has: with what an interrupted one left, if any. A part
 * is taken by renaming it, which only one of several processes can do.
 */
async function takePart(blob: string): Promise<string> {
  const own = `${blob}.${process.pid}-${parts++}${FREE}`;
  const name = basename(blob);
  for (const found of await readdir(dirname(blob))) {
    if (!found.startsWith(name) || !found.endsWith(FREE)) continue;
    const owner = /^\.(\d+)-\d+$/.exec(found.slice(name.length, -FREE.length))?.[1];
    if (owner !== undefined && isRunning(Number(owner))) continue;
    const taken = await rename(join(dirname(blob), found), own).then(
      () => true,
      () => false,
    );
    if (taken) return own;
  }
  return own;
}

/** Of a killed process nothing is left but its part. */
function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

async function sizeOf(path: string): Promise<number> {
  return await stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}

async function removed(path: string): Promise<0> {
  await rm(path, { force: true });
  return 0;
}
