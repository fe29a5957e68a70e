/** Files that went into a folder, as its provenance names them (Node only). */
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";

export interface InputFile {
  /** Without its folder. */
  readonly name: string;
  readonly bytes: number;
  readonly sha256: string;
}

export async function describeFiles(files: readonly string[]): Promise<InputFile[]> {
  const described: InputFile[] = [];
  for (const file of files) {
    const bytes = await readFile(file);
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    described.push({ name: basename(file), bytes: bytes.byteLength, sha256 });
  }
  return described;
}
