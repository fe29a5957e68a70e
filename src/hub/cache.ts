/**
 * The hub's cache on disk, as Python's huggingface_hub lays it out and shares it:
 *
 *     models--org--name/blobs/<hash>              a file's bytes, under the hash that the hub lists it with
 *     models--org--name/snapshots/<commit>/<path> a link to its blob
 *     models--org--name/refs/<revision>           the commit that a branch or tag had last
 */
import { copyFile, mkdir, readdir, readFile, rename, rm, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { isCommit, type RepositoryId } from "./id.js";

export class RepositoryCache {
  readonly #folder: string;

  constructor(cache: string, { type, name }: Pick<RepositoryId, "type" | "name">) {
    this.#folder = join(cache, `${type}s--${name.replace("/", "--")}`);
  }

  snapshot(commit: string): string {
    return join(this.#folder, "snapshots", commit);
  }

  blob(hash: string): string {
    return join(this.#folder, "blobs", hash);
  }

  /** The commit that a revision had when it was last asked for; null when it never was. */
  async commitOf(revision: string): Promise<string | null> {
    if (isCommit(revision)) return (await isFolder(this.snapshot(revision))) ? revision : null;
    const text = await readFile(join(this.#folder, "refs", revision), "utf8").catch(() => "");
    const commit = text.trim();
    return isCommit(commit) && (await isFolder(this.snapshot(commit))) ? commit : null;
  }

  async setCommit(revision: string, commit: string): Promise<void> {
    const ref = join(this.#folder, "refs", revision);
    if ((await readFile(ref, "utf8").catch(() => null)) === commit) return;
    await mkdir(dirname(ref), { recursive: true });
    const temporary = `${ref}.${process.pid}.tmp`;
    await writeFile(temporary, commit);
    await rename(temporary, ref);
  }

  /** Whether a snapshot has the file whole: links point at blobs, which get their names only then. */
  async has(commit: string, path: string, bytes: number): Promise<boolean> {
    const found = await stat(join(this.snapshot(commit), path)).catch(() => null);
    return found?.isFile() === true && found.size === bytes;
  }

  /** Puts a blob into a snapshot: a link, or a copy where links are not allowed (Windows). */
  async link(commit: string, path: string, hash: string): Promise<void> {
    const pointer = join(this.snapshot(commit), path);
    await mkdir(dirname(pointer), { recursive: true });
    const temporary = `${pointer}.${process.pid}.tmp`;
    await rm(temporary, { force: true });
    try {
      await symlink(relative(dirname(pointer), this.blob(hash)), temporary);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EPERM") throw error;
      await copyFile(this.blob(hash), temporary);
    }
    await rename(temporary, pointer);
  }

  /** Paths of the files of a snapshot, parts divided by "/". */
  async paths(commit: string): Promise<string[]> {
    const folder = this.snapshot(commit);
    const entries = await readdir(folder, { recursive: true, withFileTypes: true }).catch(() => []);
    return entries
      .filter((entry) => !entry.isDirectory())
      .map((entry) => relative(folder, join(entry.parentPath, entry.name)).replaceAll("\\", "/"));
  }
}

async function isFolder(path: string): Promise<boolean> {
  return await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
}
