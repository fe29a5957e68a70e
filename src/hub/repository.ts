/**
 * A repository of the hub at one commit: what it has, and its files in the cache. Without a network, or with
 * HF_HUB_OFFLINE=1, it is what the cache has of it.
 */
import { mkdir, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { CorruptFileError, InputError } from "../errors.js";
import type { OnProgress } from "../progress.js";
import { RepositoryCache } from "./cache.js";
import { downloadFile, type RemoteFile } from "./download.js";
import { formatId, isCommit, isInside, type RepositoryId } from "./id.js";
import { type Asking, apiFetch, HubUnreachableError, NotOnHubError } from "./request.js";
import { hubSettings } from "./settings.js";

export interface HubOptions {
  readonly signal?: AbortSignal | undefined;
  /** Bytes of a download. */
  readonly onProgress?: OnProgress | undefined;
  /** A line for the user: that the hub cannot be reached and the cache is used. */
  readonly onNote?: ((line: string) => void) | undefined;
}

/** Repositories of models have a thousand shards at most, converted data sets a few files for each config. */
const MAX_ENTRIES = 20_000;
/** 16 TB: no file of the hub is larger than 500 GB. */
const MAX_TOTAL_BYTES = 2 ** 44;

export class Repository {
  readonly id: RepositoryId;
  readonly commit: string;
  /** Whether only the cache is looked at. */
  readonly offline: boolean;
  readonly #asking: Asking;
  readonly #cache: RepositoryCache;
  readonly #options: HubOptions;

  private constructor(
    asking: Asking,
    cache: RepositoryCache,
    commit: string,
    offline: boolean,
    options: HubOptions,
  ) {
    this.id = asking.id;
    this.commit = commit;
    this.offline = offline;
    this.#asking = asking;
    this.#cache = cache;
    this.#options = options;
  }

  /** Asks which commit the revision is now. InputError, one line, when there is no such repository to be had. */
  static async open(id: RepositoryId, options: HubOptions = {}): Promise<Repository> {
    const settings = await hubSettings();
    const asking = { settings, id, signal: options.signal };
    const cache = new RepositoryCache(settings.cache, id);
    const kept = await cache.commitOf(id.revision);
    if (settings.offline) {
      if (kept === null)
        throw new NotOnHubError(
          `${formatId(id)}: no such file or folder here, and not in the cache ${settings.cache}; HF_HUB_OFFLINE forbids to download it`,
        );
      return new Repository(asking, cache, kept, true, options);
    }
    try {
      return new Repository(asking, cache, await currentCommit(asking), false, options);
    } catch (error) {
      if (!(error instanceof HubUnreachableError) || kept === null) throw error;
      options.onNote?.(`${error.message}; going on with what the cache has, commit ${kept.slice(0, 12)}`);
      return new Repository(asking, cache, kept, true, options);
    }
  }

  /** The folder of its files on disk. */
  get folder(): string {
    return this.#cache.snapshot(this.commit);
  }

  /** Paths of all files of the snapshot on disk: what offline is all there is. */
  async pathsOnDisk(): Promise<string[]> {
    return await this.#cache.paths(this.commit);
  }

  /** Its files by path: of one folder, or of all. CorruptFileError for names and sizes that cannot be. */
  async list({ folder = "", recursive = false } = {}): Promise<ReadonlyMap<string, RemoteFile>> {
    const { listFiles } = await import("@huggingface/hub");
    const { id, settings } = this.#asking;
    const listing = listFiles({
      repo: { type: id.type, name: id.name },
      revision: this.commit,
      ...(folder !== "" && { path: folder.split("/").map(encodeURIComponent).join("/") }),
      recursive,
      hubUrl: settings.endpoint,
      fetch: limitedPages(apiFetch(this.#asking), id),
    });
    const files = new Map<string, RemoteFile>();
    let entries = 0;
    for await (const entry of readable(listing, id)) {
      if (++entries > MAX_ENTRIES)
        throw new CorruptFileError(`${formatId(id)}: the hub lists more than ${MAX_ENTRIES} files`);
      const file = parseEntry(entry, id);
      if (file) files.set(file.path, file);
    }
    return files;
  }

  /** Brings files into the snapshot; those that are there already are not asked for. */
  async fetch(files: readonly RemoteFile[]): Promise<void> {
    const missing: RemoteFile[] = [];
    for (const file of files)
      if (!(await this.#cache.has(this.commit, file.path, file.bytes))) missing.push(file);
    if (missing.length === 0) return;
    const total = missing.reduce((sum, { bytes }) => sum + bytes, 0);
    await this.#checkSpace(total);
    const { onProgress } = this.#options;
    const stage = `downloading ${formatId(this.id)}`;
    let done = 0;
    for (const file of missing) {
      const onBytes = (count: number) => {
        done += count;
        onProgress?.({
          stage,
          done,
          total,
          detail: `${megabytes(done)} of ${megabytes(total)} MB, ${file.path}`,
        });
      };
      const blob = this.#cache.blob(file.hash.hex);
      const found = await stat(blob).catch(() => null);
      if (found?.size === file.bytes) onBytes(file.bytes);
      else
        await this.#reportFullDisk(() =>
          downloadFile(file, blob, { ...this.#asking, commit: this.commit, onBytes }),
        );
      await this.#cache.link(this.commit, file.path, file.hash.hex);
    }
  }

  /** To be called when all that is needed is there: from then on the revision can be had offline. */
  async keep(): Promise<void> {
    if (!this.offline && !isCommit(this.id.revision))
      await this.#cache.setCommit(this.id.revision, this.commit);
  }

  async #checkSpace(total: number): Promise<void> {
    const { cache } = this.#asking.settings;
    if (total > MAX_TOTAL_BYTES)
      throw new CorruptFileError(`${formatId(this.id)}: the hub lists ${total} bytes, which cannot be`);
    await mkdir(cache, { recursive: true });
    const disk = await statfs(cache).catch(() => null);
    if (disk && disk.bavail * disk.bsize < total)
      throw new InputError(
        `${formatId(this.id)}: ${megabytes(total)} MB are to be downloaded, and ${cache} has room for ${megabytes(disk.bavail * disk.bsize)} MB: free some space, or set HF_HOME to a folder on another disk`,
      );
  }

  async #reportFullDisk(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (error) {
      const code = error instanceof Error && "code" in error ? error.code : undefined;
      if (code !== "ENOSPC" && code !== "EDQUOT") throw error;
      throw new InputError(
        `${formatId(this.id)}: the disk of ${this.#asking.settings.cache} is full: free some space, or set HF_HOME to a folder on another disk; run again to go on`,
        { cause: error },
      );
    }
  }
}

async function currentCommit(asking: Asking): Promise<string> {
  const { id, settings } = asking;
  if (isCommit(id.revision)) return id.revision;
  const { datasetInfo, modelInfo } = await import("@huggingface/hub");
  const question = {
    name: id.name,
    revision: id.revision,
    hubUrl: settings.endpoint,
    fetch: apiFetch(asking),
  };
  const { sha } = await plainly(id, async () =>
    id.type === "model"
      ? await modelInfo({ ...question, additionalFields: ["sha"] })
      : await datasetInfo({ ...question, additionalFields: ["sha"] }),
  );
  if (typeof sha !== "string" || !isCommit(sha)) throw noSense(id);
  return sha;
}

/** Entries of the library's listing, whose failures over nonsense are TypeErrors and SyntaxErrors. */
async function* readable(listing: AsyncGenerator<unknown>, id: RepositoryId): AsyncGenerator<unknown> {
  for (;;) {
    const { value, done } = await plainly(id, () => listing.next());
    if (done) return;
    yield value;
  }
}

async function plainly<T>(id: RepositoryId, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof TypeError || error instanceof SyntaxError) throw noSense(id, error);
    throw error;
  }
}

function noSense(id: RepositoryId, cause?: unknown): CorruptFileError {
  return new CorruptFileError(
    `${formatId(id)}: the answer of the hub makes no sense: is HF_ENDPOINT a hub?`,
    { cause },
  );
}

/** A hostile listing of empty pages would never end. */
function limitedPages(ask: typeof fetch, id: RepositoryId): typeof fetch {
  let pages = 0;
  return async (input, init) => {
    if (++pages > MAX_ENTRIES / 20)
      throw new CorruptFileError(`${formatId(id)}: the hub's list of files does not end`);
    return await ask(input, init);
  };
}

function parseEntry(entry: unknown, id: RepositoryId): RemoteFile | null {
  const { type, path, size, oid, lfs } = Object(entry) as Record<string, unknown>;
  if (typeof path !== "string") throw noSense(id);
  if (!isInside(path))
    throw new CorruptFileError(
      `${formatId(id)}: the hub lists a file outside of the repository: ${JSON.stringify(path.slice(0, 80)).replace(/[^ -~]/g, "?")}`,
    );
  if (type !== "file") return null;
  const large = Object(lfs) as Record<string, unknown>;
  const hash =
    lfs === undefined || lfs === null
      ? ({ kind: "git", hex: String(oid) } as const)
      : ({ kind: "sha256", hex: String(large["oid"]) } as const);
  const bytes = lfs ? large["size"] : size;
  if (!Number.isSafeInteger(bytes) || (bytes as number) < 0) throw noSense(id);
  if (!(hash.kind === "git" ? /^[0-9a-f]{40}$/ : /^[0-9a-f]{64}$/).test(hash.hex)) throw noSense(id);
  return { path, bytes: bytes as number, hash };
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0);
}

/** A file of the snapshot. */
export function fileIn(repository: Repository, path: string): string {
  return join(repository.folder, path);
}
