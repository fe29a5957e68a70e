/**
 * Text files from outside: a `.jsonl` file has a JSON value a line, a `.json` file an array of them, any other
 * is plain UTF-8 text (Node only). What an entry's fields mean is the caller's affair.
 */
import { extname } from "node:path";
import { FileSource } from "../checkpoint/file-source.js";
import { InputError } from "../errors.js";

/** One value of a `.json` or `.jsonl` file. */
export interface TextFileEntry {
  readonly value: unknown;
  /** For messages: file and line or entry. */
  readonly where: string;
}

export type TextFile =
  | { readonly kind: "plain"; readonly text: string }
  | { readonly kind: "entries"; readonly entries: readonly TextFileEntry[] };

/** Node's longest string is twice this; the text is held beside its bytes. */
const MAX_FILE_BYTES = 256 * 2 ** 20;

/**
 * Reads a file; blank lines of `.jsonl` are no entries. InputError naming file and line when it cannot be
 * read, is empty or blank, is no UTF-8 or no JSON.
 */
export async function readTextFile(path: string): Promise<TextFile> {
  const text = decodeUtf8(await readBytes(path), path);
  if (text.trim() === "") throw new InputError(`${path} contains no text: give a file with some`);
  const extension = extname(path).toLowerCase();
  if (extension === ".jsonl") {
    const entries = text.split("\n").flatMap((line, i) => {
      const where = `${path} line ${i + 1}`;
      return line.trim() === "" ? [] : [{ value: parseJson(line, where), where }];
    });
    return { kind: "entries", entries };
  }
  if (extension === ".json") {
    const value = parseJson(text, path, " (a file with one object a line is named .jsonl)");
    if (!Array.isArray(value)) throw new InputError(`${path}: expected a JSON array of objects`);
    if (value.length === 0) throw new InputError(`${path} has no entries: give a file with some`);
    const entries = value.map((entry: unknown, i) => ({ value: entry, where: `${path} entry ${i + 1}` }));
    return { kind: "entries", entries };
  }
  return { kind: "plain", text };
}

async function readBytes(path: string): Promise<Uint8Array> {
  let file: FileSource;
  try {
    file = await FileSource.open(path);
  } catch (error) {
    if (!(error instanceof Error && "code" in error)) throw error;
    throw new InputError(`cannot read ${path}: ${error.message}`);
  }
  try {
    if (file.size === 0) throw new InputError(`${path} is empty: give a file with some text`);
    if (file.size > MAX_FILE_BYTES)
      throw new InputError(`${path} has ${file.size} bytes, at most ${MAX_FILE_BYTES} are read: split it`);
    return await file.read(0, file.size);
  } finally {
    await file.close();
  }
}

function decodeUtf8(bytes: Uint8Array, path: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new InputError(`${path} line ${firstBadLine(bytes)} is not UTF-8: save the file as UTF-8 text`);
  }
}

/** The first line that is not UTF-8. No character of several bytes contains the byte of a line's end. */
function firstBadLine(bytes: Uint8Array): number {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  for (let line = 1, start = 0; ; line++) {
    const end = bytes.indexOf(10, start);
    try {
      decoder.decode(bytes.subarray(start, end < 0 ? undefined : end));
    } catch {
      return line;
    }
    if (end < 0) return line;
    start = end + 1;
  }
}

function parseJson(text: string, where: string, hint = ""): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    // V8 names the place of most mistakes; its message quotes the text and so can be several lines long.
    const position = /at position (\d+)/.exec((error as Error).message)?.[1];
    const line = position === undefined ? 0 : text.slice(0, Number(position)).split("\n").length;
    throw new InputError(`${where}${line > 1 ? ` line ${line}` : ""} is not valid JSON: correct it${hint}`);
  }
}
