/**
 * SHA-256 without Node: WebCrypto, which runs on a thread of its own, or @noble/hashes where a page is not
 * served over https or from localhost and WebCrypto is withheld.
 */
import { sha256 as hashInScript } from "@noble/hashes/sha2.js";

export async function portableSha256(bytes: Uint8Array): Promise<string> {
  const subtle = globalThis.crypto?.subtle;
  if (!subtle) return hex(hashInScript(bytes));
  return hex(new Uint8Array(await subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>)));
}

/** A hash of bytes that come in pieces; `digest` gives 64 lower-case hex digits. */
export function streamingSha256(): { update(bytes: Uint8Array): void; digest(): string } {
  const hash = hashInScript.create();
  return { update: (bytes) => hash.update(bytes), digest: () => hex(hash.digest()) };
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
