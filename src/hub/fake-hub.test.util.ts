/**
 * A hub on this machine for tests: its API's revisions and listings by pages, files by redirect to a second server
 * as large ones are, ranges, ETags, tokens. What goes wrong is put in with `intercept`.
 */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface FakeRepository {
  /** Files by path, at each commit. */
  readonly commits: Map<string, Map<string, Uint8Array>>;
  /** Commits by branch. */
  readonly branches: Map<string, string>;
  /** Who may read; everyone where there is none. */
  token?: string;
  gated?: boolean;
}

/** Entries of a listing's page. */
const PAGE = 3;

export class FakeHub {
  /** By "models/org/name" and "datasets/org/name". */
  readonly repositories = new Map<string, FakeRepository>();
  /** Method, path and range of all that was asked, and whether a token came along. */
  readonly requests: { readonly url: string; readonly range: string | undefined; readonly token: boolean }[] =
    [];
  /** Answers itself and returns true, or leaves the request to the hub. */
  intercept: (url: URL, request: IncomingMessage, response: ServerResponse) => boolean = () => false;
  #hub: Server | undefined;
  #files: Server | undefined;
  #port = 0;

  async listen(): Promise<void> {
    this.#hub = createServer((request, response) => this.#answer(request, response));
    this.#files = createServer((request, response) => this.#answer(request, response));
    await new Promise<void>((done) => this.#hub!.listen(this.#port, "127.0.0.1", done));
    await new Promise<void>((done) => this.#files!.listen(0, "127.0.0.1", done));
    this.#port = (this.#hub.address() as AddressInfo).port;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  async close(): Promise<void> {
    for (const server of [this.#hub, this.#files]) {
      server?.closeAllConnections();
      await new Promise((done) => server?.close(done));
    }
  }

  /** Puts files under a branch, at a commit that is made from them. */
  put(repository: string, files: Readonly<Record<string, Uint8Array | string>>, branch = "main"): string {
    const found = this.repositories.get(repository) ?? { commits: new Map(), branches: new Map() };
    const bytes = new Map(
      Object.entries(files).map(([path, content]) => [
        path,
        typeof content === "string" ? Buffer.from(content) : content,
      ]),
    );
    const hash = createHash("sha1");
    for (const [path, content] of bytes) hash.update(`${path}\0`).update(content);
    const commit = hash.digest("hex");
    found.commits.set(commit, bytes);
    found.branches.set(branch, commit);
    this.repositories.set(repository, found);
    return commit;
  }

  /** Requests for a file's bytes since the last call. */
  takeDownloads(): string[] {
    const taken = this.requests.splice(0).map(({ url }) => url);
    return taken.filter((url) => url.includes("/resolve/")).map((url) => url.split("/").at(-1)!);
  }

  #answer(request: IncomingMessage, response: ServerResponse): ServerResponse {
    const url = new URL(request.url!, this.endpoint);
    const { authorization, range } = request.headers;
    this.requests.push({ url: url.pathname, range, token: authorization !== undefined });
    if (this.intercept(url, request, response)) return response;
    const parts = url.pathname.split("/").slice(1).map(decodeURIComponent);
    if (parts[0] === "blob") return this.#sendBlob(parts[1], range, response);
    const api = parts[0] === "api";
    if (api) parts.shift();
    const kind = parts[0] === "datasets" || parts[0] === "models" ? parts.shift()! : "models";
    const [owner, name, what, revision, ...path] = parts;
    const repository = this.repositories.get(`${kind}/${owner}/${name}`);
    const refuse = (status: number, code: string) =>
      response
        .writeHead(status, { "x-error-code": code, "content-type": "application/json" })
        .end(JSON.stringify({ error: `${code}\nover two lines` }));
    if (!repository) return refuse(404, "RepoNotFound");
    if (repository.token !== undefined && authorization !== `Bearer ${repository.token}`)
      return repository.gated ? refuse(403, "GatedRepo") : refuse(401, "RepoNotFound");
    const commit = repository.branches.get(revision) ?? revision;
    const files = repository.commits.get(commit);
    if (!files) return refuse(404, "RevisionNotFound");
    if (api && what === "revision")
      return sendJson(response, { _id: "0", id: `${owner}/${name}`, sha: commit, lastModified: 0 });
    if (api && what === "tree") return this.#sendTree(files, path.join("/"), url, response);
    if (what !== "resolve") return refuse(404, "EntryNotFound");
    const bytes = files.get(path.join("/"));
    if (!bytes) return refuse(404, "EntryNotFound");
    response.setHeader("x-repo-commit", commit);
    if (!isLarge(path.join("/"))) return sendRange(bytes, range, response, gitHash(bytes));
    const { port } = this.#files!.address() as AddressInfo;
    const location = `http://localhost:${port}/blob/${sha256(bytes)}`;
    return response
      .writeHead(302, { location, "x-linked-size": bytes.length, "x-linked-etag": `"${sha256(bytes)}"` })
      .end();
  }

  #sendBlob(hash: string, range: string | undefined, response: ServerResponse): ServerResponse {
    for (const { commits } of this.repositories.values())
      for (const files of commits.values())
        for (const bytes of files.values())
          if (sha256(bytes) === hash) return sendRange(bytes, range, response);
    return response.writeHead(404).end();
  }

  #sendTree(
    files: ReadonlyMap<string, Uint8Array>,
    folder: string,
    url: URL,
    response: ServerResponse,
  ): ServerResponse {
    const prefix = folder === "" ? "" : `${folder}/`;
    const recursive = url.searchParams.get("recursive") === "true";
    const entries = new Map<string, object>();
    for (const [path, bytes] of files) {
      if (!path.startsWith(prefix)) continue;
      const slash = path.indexOf("/", prefix.length);
      if (slash >= 0) {
        const directory = path.slice(0, slash);
        entries.set(directory, { type: "directory", path: directory, size: 0, oid: "0".repeat(40) });
        if (!recursive) continue;
      }
      entries.set(path, treeEntry(path, bytes));
    }
    if (entries.size === 0) return response.writeHead(404, { "x-error-code": "EntryNotFound" }).end();
    const start = Number(url.searchParams.get("cursor") ?? 0);
    const next = new URL(url);
    next.searchParams.set("cursor", String(start + PAGE));
    return sendJson(response, [...entries.values()].slice(start, start + PAGE), {
      ...(start + PAGE < entries.size && { link: `<${next.href}>; rel="next"` }),
    });
  }
}

export function treeEntry(path: string, bytes: Uint8Array): object {
  const common = { type: "file", path, size: bytes.length };
  return isLarge(path)
    ? {
        ...common,
        oid: "0".repeat(40),
        lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 130 },
        xetHash: "1".repeat(64),
      }
    : { ...common, oid: gitHash(bytes) };
}

export function sendJson(
  response: ServerResponse,
  value: unknown,
  headers: Record<string, string> = {},
): ServerResponse {
  return response
    .writeHead(200, { "content-type": "application/json", ...headers })
    .end(JSON.stringify(value));
}

function sendRange(
  bytes: Uint8Array,
  range: string | undefined,
  response: ServerResponse,
  hash = sha256(bytes),
): ServerResponse {
  const etag = `"${hash}"`;
  const match = /^bytes=(\d+)-(\d*)$/.exec(range ?? "");
  if (!match) return response.writeHead(200, { "content-length": bytes.length, etag }).end(bytes);
  const start = Number(match[1]);
  const end = match[2] === "" ? bytes.length : Number(match[2]) + 1;
  const body = bytes.subarray(start, end);
  return response
    .writeHead(206, {
      "content-range": `bytes ${start}-${end - 1}/${bytes.length}`,
      "content-length": body.length,
      etag,
    })
    .end(body);
}

function isLarge(path: string): boolean {
  return /\.(safetensors|gguf|parquet)$/.test(path);
}

function gitHash(bytes: Uint8Array): string {
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}
