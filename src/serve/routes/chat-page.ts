/**
 * The chat page at `/`: the files that Vite built from apps/chat, read once. A file is a route of its own, so a
 * request names nothing on the disk.
 */
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { extname } from "node:path";
import { errorCode } from "../../container/disk.js";
import type { App } from "../context.js";

export interface PageFile {
  /** Such as "/assets/index-1a2b3c.js"; "/" for the page itself. */
  readonly path: string;
  readonly type: string;
  readonly bytes: Buffer;
  readonly etag: string;
}

const BUILT = new URL("../../chat/", import.meta.url);

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** Scripts and styles of the page's own files, requests to its own server, nothing else; no frames around it. */
const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/** Empty where the page was not built (`npm run build:chat`). */
export async function readChatPage(): Promise<PageFile[]> {
  try {
    const entries = await readdir(BUILT, { recursive: true });
    const names = entries.map((name) => name.replaceAll("\\", "/")).filter((name) => extname(name) in TYPES);
    return await Promise.all(
      names.map(async (name) => {
        const bytes = await readFile(new URL(name, BUILT));
        return {
          path: name === "index.html" ? "/" : `/${name}`,
          type: TYPES[extname(name)],
          bytes,
          etag: `"${createHash("sha256").update(bytes).digest("hex").slice(0, 32)}"`,
        };
      }),
    );
  } catch (error) {
    if (errorCode(error) === "ENOENT") return [];
    throw error;
  }
}

export function addChatPage(app: App, files: readonly PageFile[]): void {
  for (const { path, type, bytes, etag } of files)
    app.get(path, { schema: { hide: true } }, async (request, reply) => {
      reply.headers({
        "content-security-policy": POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
        etag,
      });
      if (request.headers["if-none-match"] === etag) return reply.code(304).send();
      return reply.type(type).send(bytes);
    });
}
