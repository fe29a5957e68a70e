/**
 * Files over HTTP, by `fetch` (browsers and Node): every failure is one line, sizes are bounded by what the
 * manifest says, and files can be kept in a browser's Cache Storage, under their hashes.
 */
import { CorruptFileError, InputError } from "../errors.js";
import type { FileEntry } from "./manifest.js";
import { streamingSha256 } from "./sha256.js";

export type ByteStream = ReadableStream<Uint8Array>;

/** The body at `url`, or null where there is no such file. InputError for everything else that goes wrong. */
export async function download(url: string, signal: AbortSignal): Promise<Response | null> {
  let response: Response;
  try {
    response = await fetch(url, { signal });
  } catch (error) {
    signal.throwIfAborted();
    throw new InputError(
      `${url}: cannot be fetched: there is no such server, no network, or the server does not allow other sites' pages to read it (CORS)`,
      { cause: error },
    );
  }
  if (response.status === 404 || response.status === 410) return null;
  if (!response.ok || !response.body)
    throw new InputError(`${url}: the server answered HTTP ${response.status}`);
  // Development servers answer with their start page instead of 404.
  if (response.headers.get("content-type")?.startsWith("text/html")) return null;
  return response;
}

/** The body of `response`, at most `limit` bytes. CorruptFileError when it is longer or cut short. */
export async function readBody(response: Response, limit: number, url: string): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  const reader = body(response).getReader();
  for (;;) {
    const { value, done } = await readPiece(reader, url);
    if (done) break;
    length += value.length;
    if (length > limit) {
      await reader.cancel();
      throw new CorruptFileError(`${url}: has more than ${limit} bytes`);
    }
    pieces.push(value);
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const piece of pieces) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

async function readPiece(
  reader: ReadableStreamDefaultReader<Uint8Array>,
  url: string,
): Promise<ReadableStreamReadResult<Uint8Array>> {
  try {
    return await reader.read();
  } catch (error) {
    if (error instanceof InputError || !(error instanceof TypeError)) throw error;
    // What fetch says of a connection that breaks, in browsers and in Node.
    throw new InputError(`${url}: the connection broke; load it again`, { cause: error });
  }
}

/** A stream's pieces as they pass, counted; a connection that breaks is an InputError. */
export function counted(response: Response, url: string, onBytes: (count: number) => void): ByteStream {
  const reader = body(response).getReader();
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        const { value, done } = await readPiece(reader, url);
        if (done) return controller.close();
        onBytes(value.length);
        controller.enqueue(value);
      },
      cancel: (reason) => reader.cancel(reason),
    },
    { highWaterMark: 0 },
  );
}

/** `download` says null where a body is missing. */
function body(response: Response): ByteStream {
  return response.body!;
}

/** A stream's pieces as they pass; it fails at its end unless size and hash are those of `listed`. */
export function verified(stream: ByteStream, listed: FileEntry, url: string): ByteStream {
  const hash = streamingSha256();
  let length = 0;
  const wrong = (what: string) =>
    new CorruptFileError(`${url}: ${what}; the file is damaged or was replaced`);
  return stream.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform(piece, controller) {
        length += piece.length;
        if (length > listed.bytes) throw wrong(`has more than the manifest's ${listed.bytes} bytes`);
        hash.update(piece);
        controller.enqueue(piece);
      },
      flush() {
        if (length < listed.bytes)
          throw new CorruptFileError(
            `${url}: the download ended after ${length} of ${listed.bytes} bytes; load it again`,
          );
        if (hash.digest() !== listed.sha256) throw wrong("does not match its SHA-256");
      },
    }),
  );
}

const CACHE_NAME = "pocketllm";

/** The browser's Cache Storage. InputError where there is none: Node, a page over plain http. */
export async function openDownloadCache(): Promise<Cache> {
  if (typeof caches === "undefined")
    throw new InputError(
      "downloads cannot be kept here: only a page over https or from localhost has Cache Storage; load without cache",
    );
  return await caches.open(CACHE_NAME);
}
