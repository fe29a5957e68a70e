/** SHA-256 of byte sources (node:crypto), streamed: what a compressed model's manifest says of its origin. */
import { createHash } from "node:crypto";
import { throwIfAborted } from "../errors.js";
import type { ByteSource } from "./byte-source.js";

const CHUNK_BYTES = 4 * 2 ** 20;

/** Hex, over the bytes of all sources one after the other. Rejects with the signal's reason when aborted. */
export async function hashSources(sources: readonly ByteSource[], signal?: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  for (const source of sources)
    for (let at = 0; at < source.size; at += CHUNK_BYTES) {
      throwIfAborted(signal);
      hash.update(await source.read(at, Math.min(CHUNK_BYTES, source.size - at)));
    }
  return hash.digest("hex");
}
