/**
 * JSON of files that nobody vouches for: size is bounded before parsing, duplicate keys are refused (parsers
 * differ in which one they keep, so two readers would see two models), and what is an object is checked.
 */
import { CorruptFileError } from "../errors.js";

export type JsonObject = Record<string, unknown>;

/** `file` is named in messages. CorruptFileError when the bytes are not a JSON object in UTF-8 without duplicate keys. */
export function parseJsonObject(bytes: Uint8Array, file: string): JsonObject {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    value = JSON.parse(text);
  } catch {
    throw new CorruptFileError(`${file}: is not valid JSON; get the file again`);
  }
  if (!isObject(value)) throw new CorruptFileError(`${file}: is not a JSON object`);
  const duplicate = findDuplicateKey(text);
  if (duplicate !== null)
    throw new CorruptFileError(`${file}: the key ${quote(duplicate)} appears twice; get the file again`);
  return value;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A name from a file in a message: quoted, on one line, at most 80 characters. */
export function quote(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 77)}...` : name);
}

/** The first key that an object of `text` (valid JSON) has twice, or null. */
function findDuplicateKey(text: string): string | null {
  // One entry for each open bracket: the keys seen so far, or null inside an array.
  const open: (Set<string> | null)[] = [];
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "{") open.push(new Set());
    else if (c === "[") open.push(null);
    else if (c === "}" || c === "]") open.pop();
    else if (c === '"') {
      const start = i++;
      while (text[i] !== '"') i += text[i] === "\\" ? 2 : 1;
      const keys = open.at(-1);
      // In an object a string is a key when a colon follows.
      if (keys && nextSignificant(text, i + 1) === ":") {
        const key = JSON.parse(text.slice(start, i + 1)) as string;
        if (keys.has(key)) return key;
        keys.add(key);
      }
    }
  }
  return null;
}

/** The first character at or after `from` that is not JSON white space. */
function nextSignificant(text: string, from: number): string | undefined {
  let i = from;
  while (text[i] === " " || text[i] === "\n" || text[i] === "\t" || text[i] === "\r") i++;
  return text[i];
}
