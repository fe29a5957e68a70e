/**
 * A PocketLLM folder on a web server as a FolderSource, in a browser or in Node. Files are fetched when they are
 * read, and read while they arrive; the folder checks hashes, as on disk. With `cache` files are kept in Cache Storage under
 * their hashes and loading again asks the server for the manifest only, or for nothing where it cannot be reached.
 */
import { bytesSource } from "../checkpoint/byte-source.js";
import { CorruptFileError, InputError } from "../errors.js";
import type { OnProgress } from "../progress.js";
import { type ByteStream, counted, download, openDownloadCache, readBody, verified } from "./download.js";
import type { FolderSource } from "./folder-source.js";
import { type FileEntry, MANIFEST_FILE, MAX_MANIFEST_BYTES } from "./manifest.js";
import { portableSha256 } from "./sha256.js";
import { StreamedSource } from "./streamed-source.js";

export interface FolderAtUrlOptions {
  /** Keep the files for the next time. Default false. InputError where there is no Cache Storage. */
  readonly cache?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Stage "downloading", in bytes over the network; the total is that of the files begun so far. */
  readonly onProgress?: OnProgress | undefined;
}

/** `url`: of the folder, with or without a slash at its end, or of its pocketllm.json. */
export async function folderAtUrl(url: URL, options: FolderAtUrlOptions = {}): Promise<FolderSource> {
  return new FolderAtUrl(url, options, options.cache ? await openDownloadCache() : null);
}

class FolderAtUrl implements FolderSource {
  readonly name: string;
  readonly sha256 = portableSha256;
  readonly #base: URL;
  readonly #cache: Cache | null;
  readonly #streams: StreamedSource[] = [];
  readonly #downloads = new AbortController();
  readonly #signal: AbortSignal | undefined;
  readonly #onProgress: OnProgress | undefined;
  #done = 0;
  #total = 0;

  constructor(url: URL, { signal, onProgress }: FolderAtUrlOptions, cache: Cache | null) {
    const path = url.pathname.endsWith(`/${MANIFEST_FILE}`)
      ? url.pathname.slice(0, -MANIFEST_FILE.length)
      : url.pathname;
    this.#base = new URL(url);
    this.#base.pathname = path.endsWith("/") ? path : `${path}/`;
    this.#base.hash = "";
    this.name = this.#base.href;
    this.#cache = cache;
    this.#signal = signal;
    this.#onProgress = onProgress;
    if (signal?.aborted) this.#abort();
    signal?.addEventListener("abort", this.#abort);
  }

  async open(file: string, listed?: FileEntry) {
    const url = this.#url(file);
    if (!listed) {
      const bytes = await this.#manifest(url);
      return bytes && bytesSource(bytes, url);
    }
    const source = new StreamedSource(url, listed.bytes, () => this.#stream(url, listed));
    this.#streams.push(source);
    return source;
  }

  async close(): Promise<void> {
    this.#signal?.removeEventListener("abort", this.#abort);
    for (const stream of this.#streams) await stream.close();
    this.#abort();
  }

  readonly #abort = () => this.#downloads.abort(this.#signal?.reason);

  #url(file: string): string {
    const url = new URL(this.#base);
    url.pathname += file;
    return url.href;
  }

  /** From the server, so that a new version is seen; from the cache where the server cannot be reached. */
  async #manifest(url: string): Promise<Uint8Array | null> {
    let response: Response | null;
    try {
      response = await download(url, this.#downloads.signal);
    } catch (error) {
      const kept = error instanceof InputError ? await this.#cache?.match(url) : undefined;
      if (!kept) throw error;
      return await readBody(kept, MAX_MANIFEST_BYTES, url);
    }
    if (!response) return null;
    const bytes = await readBody(response, MAX_MANIFEST_BYTES, url);
    if (this.#cache) await this.#keepManifest(this.#cache, url, bytes);
    return bytes;
  }

  /** Files of an earlier version go: those whose hash the new manifest does not hold. */
  async #keepManifest(cache: Cache, url: string, bytes: Uint8Array): Promise<void> {
    const text = new TextDecoder().decode(bytes);
    const base = this.#base.href;
    for (const { url: kept } of await cache.keys()) {
      const hash = new URL(kept).searchParams.get(HASH_PARAMETER);
      if (kept.startsWith(base) && hash !== null && !text.includes(hash)) await cache.delete(kept);
    }
    await cache.put(url, new Response(bytes as Uint8Array<ArrayBuffer>));
  }

  async #stream(url: string, listed: FileEntry): Promise<ByteStream> {
    this.#total += listed.bytes;
    const response = await this.#cachedOrFetched(url, listed);
    if (!response?.body) throw new CorruptFileError(`${url}: is missing, but ${MANIFEST_FILE} lists it`);
    return response.body;
  }

  async #cachedOrFetched(url: string, listed: FileEntry): Promise<Response | null> {
    const key = new URL(url);
    key.searchParams.set(HASH_PARAMETER, listed.sha256);
    const kept = await this.#cache?.match(key);
    if (kept) return kept;
    const response = await download(url, this.#downloads.signal);
    if (!response) return null;
    const length = response.headers.get("content-length");
    if (length !== null && !response.headers.has("content-encoding") && Number(length) !== listed.bytes)
      throw new CorruptFileError(
        `${url}: has ${length} bytes where ${MANIFEST_FILE} says ${listed.bytes}; the folder is not complete, or of two versions`,
      );
    const stream = counted(response, url, (count) => {
      this.#done += count;
      this.#onProgress?.({ stage: "downloading", done: this.#done, total: this.#total });
    });
    if (!this.#cache) return new Response(stream);
    try {
      await this.#cache.put(key, new Response(verified(stream, listed, url)));
    } catch (error) {
      this.#downloads.signal.throwIfAborted();
      // A full disk is no reason not to run the model.
      if (!(error instanceof DOMException && error.name === "QuotaExceededError")) throw error;
      return await download(url, this.#downloads.signal);
    }
    return (await this.#cache.match(key)) ?? (await download(url, this.#downloads.signal));
  }
}

/** Query parameter of cached files' keys: their SHA-256. */
const HASH_PARAMETER = "sha256";
