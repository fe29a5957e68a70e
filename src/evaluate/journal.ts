/**
 * The journal of an unfinished evaluation: one file to which every finished piece adds a line, so that a run
 * that died goes on where it was and ends with the same numbers (Node only). A line is
 * `<SHA-256 of the JSON> <JSON>`; what follows the first damaged line is made again.
 */
import { type FileHandle, mkdir, open, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { FileSource } from "../checkpoint/file-source.js";
import type { JsonValue } from "../codec/coded.js";
import { errorCode, sha256 } from "../container/disk.js";
import { canonicalJson } from "../container/json.js";
import { InputError, UsageError } from "../errors.js";

/** What an evaluation asks of a journal. Values are what JSON gives back. */
export interface EvaluationJournal {
  get(key: string): unknown;
  put(key: string, value: object): Promise<void>;
}

/** A line is 80 bytes; a position compared with a reference adds about 20: 256 MiB are 13 million of them. */
const MAX_BYTES = 256 * 2 ** 20;
/** The most work that a power cut loses; a process that dies loses none of it. */
const SECONDS_BETWEEN_FLUSHES = 5;
const HASH_DIGITS = 64;

export class JournalFile implements EvaluationJournal {
  readonly path: string;
  readonly #entries: Map<string, unknown>;
  readonly #handle: FileHandle;
  #flushed = performance.now();

  private constructor(path: string, entries: Map<string, unknown>, handle: FileHandle) {
    this.path = path;
    this.#entries = entries;
    this.#handle = handle;
  }

  /**
   * Opens or begins a journal. UsageError when it belongs to another evaluation: `fingerprint` is a hash of
   * all that the numbers depend on. InputError when the file is not a journal or cannot be written.
   */
  static async open(path: string, fingerprint: string): Promise<JournalFile> {
    const header = canonicalJson({ format: "pocketllm-evaluation", version: 1, fingerprint });
    const { lines, text } = await readLines(path);
    const [first, ...rest] = lines;
    if (first !== undefined && first !== header)
      throw new UsageError(`${path} is the journal of another evaluation: delete it to start again`);
    // A run that died while it wrote the first line left a part of it.
    if (first === undefined && !lineOf(header).startsWith(text))
      throw new InputError(`${path} is not the journal of an evaluation: move it elsewhere`);
    const entries = new Map(rest.map((line) => JSON.parse(line) as [string, unknown]));
    try {
      await mkdir(dirname(path), { recursive: true });
      const handle = await open(path, first === undefined ? "w" : "r+");
      const journal = new JournalFile(path, entries, handle);
      if (first === undefined) await journal.#append(header);
      else await handle.truncate(lengthOf(lines));
      return journal;
    } catch (error) {
      if (errorCode(error) === undefined) throw error;
      throw new InputError(`cannot keep a journal in ${path}: ${(error as Error).message}`);
    }
  }

  /** Finished pieces that were found. */
  get size(): number {
    return this.#entries.size;
  }

  get(key: string): unknown {
    return this.#entries.get(key);
  }

  async put(key: string, value: object): Promise<void> {
    await this.#append(canonicalJson([key, value as JsonValue]));
    this.#entries.set(key, value);
  }

  async #append(json: string): Promise<void> {
    const { size } = await this.#handle.stat();
    // At the end, wherever an earlier failure left the handle.
    await this.#handle.write(lineOf(json), size);
    if (performance.now() - this.#flushed < 1000 * SECONDS_BETWEEN_FLUSHES) return;
    await this.#handle.sync();
    this.#flushed = performance.now();
  }

  /** Flushes; the file stays. */
  async close(): Promise<void> {
    await this.#handle.sync();
    await this.#handle.close();
  }

  /** The evaluation is finished and its result is where it belongs. */
  async remove(): Promise<void> {
    await this.#handle.close();
    await rm(this.path, { force: true });
  }
}

function lineOf(json: string): string {
  return `${sha256(json)} ${json}\n`;
}

function lengthOf(lines: readonly string[]): number {
  return lines.reduce((sum, json) => sum + HASH_DIGITS + 2 + Buffer.byteLength(json), 0);
}

/** The file's text, empty when there is none, and the JSON of its whole lines up to the first that is not. */
async function readLines(path: string): Promise<{ lines: string[]; text: string }> {
  let file: FileSource;
  try {
    file = await FileSource.open(path);
  } catch (error) {
    if (errorCode(error) === "ENOENT") return { lines: [], text: "" };
    throw error;
  }
  try {
    if (file.size > MAX_BYTES)
      throw new InputError(`${path} has ${file.size} bytes, at most ${MAX_BYTES} are read: delete it`);
    const text = Buffer.from(await file.read(0, file.size)).toString("utf8");
    const lines: string[] = [];
    for (const line of text.split("\n").slice(0, -1)) {
      const json = line.slice(HASH_DIGITS + 1);
      if (sha256(json) !== line.slice(0, HASH_DIGITS)) break;
      lines.push(json);
    }
    return { lines, text };
  } finally {
    await file.close();
  }
}
