/**
 * JSON of files that nobody vouches for: size is bounded before parsing, duplicate keys are refused (parsers
 * differ in which one they keep, so two readers would see two models), and so is deep nesting.
 */
import { CorruptFileError } from "../errors.js";

/** Real files nest about ten levels; readers that recurse would overflow their stack at some thousands. */
const MAX_DEPTH = 64;

export type JsonObject = Record<string, unknown>;

/** `file` is named in messages. CorruptFileError when the bytes are not such a JSON object in UTF-8. */
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
  checkStructure(text, value, file);
  return value;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** A name from a file in a message: quoted, on one line, without control characters, at most 80 characters. */
export function quote(name: string): string {
  const text = JSON.stringify(name.length > 80 ? `${name.slice(0, 77)}...` : name);
  // JSON leaves these: DEL, the C1 controls (U+009B begins a terminal command) and the two line separators.
  return text.replace(
    /[\u007f-\u009f\u2028\u2029]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/**
 * Throws CorruptFileError when an object of `text` (valid JSON, parsed as `value`) has a key twice or brackets nest
 * too deeply. Outside strings every key has one colon, so a key that came twice shows in their number: names are
 * looked at only then, since a tokenizer has 50,000 of them.
 */
function checkStructure(text: string, value: unknown, file: string): void {
  let depth = 0;
  let colons = 0;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c === QUOTE) i = endOfString(text, i);
    else if (c === COLON) colons++;
    else if (c === BRACE || c === BRACKET) {
      if (depth++ === MAX_DEPTH)
        throw new CorruptFileError(`${file}: is nested deeper than ${MAX_DEPTH} levels`);
    } else if (c === BRACE_END || c === BRACKET_END) depth--;
  }
  if (colons !== countKeys(value))
    throw new CorruptFileError(
      `${file}: the key ${quote(duplicateKey(text))} appears twice; get the file again`,
    );
}

const [QUOTE, COLON, BRACE, BRACE_END, BRACKET, BRACKET_END] = Array.from('":{}[]', (c) => c.charCodeAt(0));

/** The place of the quotation mark that ends the string which begins at `start`. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); ; end = text.indexOf('"', end + 1)) {
    let before = end;
    while (text[before - 1] === "\\") before--;
    if ((end - before) % 2 === 0) return end;
  }
}

/** Keys of all objects in a parsed value that nests at most MAX_DEPTH levels. */
function countKeys(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  let keys = 0;
  if (Array.isArray(value)) {
    for (const each of value) if (typeof each === "object") keys += countKeys(each);
    return keys;
  }
  // Keys, not values: a list of a tokenizer's 49,152 values takes twice as long.
  for (const key of Object.keys(value)) {
    keys++;
    const each = (value as JsonObject)[key];
    if (typeof each === "object") keys += countKeys(each);
  }
  return keys;
}

/** The first key of `text` that its object already has. */
function duplicateKey(text: string): string {
  // One entry for each open bracket: the keys seen so far, or null inside an array.
  const open: (Set<string> | null)[] = [];
  for (let i = 0; i < text.length; i++) {
    const c = text[i];
    if (c === "{" || c === "[") open.push(c === "{" ? new Set() : null);
    else if (c === "}" || c === "]") open.pop();
    else if (c === '"') {
      const start = i;
      i = endOfString(text, start);
      const keys = open.at(-1);
      // In an object a string is a key when a colon follows.
      if (!keys || nextSignificant(text, i + 1) !== ":") continue;
      const key = JSON.parse(text.slice(start, i + 1)) as string;
      if (keys.has(key)) return key;
      keys.add(key);
    }
  }
  throw new Error("no key appears twice");
}

/** The first character at or after `from` that is not JSON white space. */
function nextSignificant(text: string, from: number): string | undefined {
  let i = from;
  while (text[i] === " " || text[i] === "\n" || text[i] === "\t" || text[i] === "\r") i++;
  return text[i];
}
