/**
 * The journal of an unfinished folder: one file an entry, each whole or absent, each with hashes of its own,
 * so that a run that died goes on where it was (Node only). An entry that was damaged since is dropped when
 * the journal is opened, and so made again.
 *
 * An entry file is `<hash of the JSON> <JSON>\n` and the tensors' bytes in order.
 */
import { createHash } from "node:crypto";
import { mkdir, readdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { FileSource } from "../checkpoint/file-source.js";
import { tensorBytes } from "../checkpoint/safetensors.js";
import { writeAtomically } from "../checkpoint/safetensors-write.js";
import type { JsonValue, StoredTensor } from "../codec/coded.js";
import { CorruptFileError, UsageError } from "../errors.js";
import type { DType } from "../tensor/dtype.js";
import { CHUNK_BYTES, errorCode, hashRange, sha256 } from "./disk.js";
import { canonicalJson } from "./json.js";

export type EntryKind = "coded" | "plain" | "note";

export interface EntryTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly bytes: number;
  readonly sha256: string;
  /** Where its bytes start in the entry file. */
  readonly offset: number;
}

export interface Entry {
  readonly kind: EntryKind;
  readonly name: string;
  readonly path: string;
  /** What the writer wants to know again; the journal does not look inside. */
  readonly description: JsonValue;
  readonly tensors: readonly EntryTensor[];
}

type Header = Pick<Entry, "kind" | "name" | "description"> & {
  readonly tensors: readonly Omit<EntryTensor, "offset">[];
};

const HEADER_FILE = "journal.json";
const MAX_HEADER_BYTES = 16 * 2 ** 20;

export class Journal {
  readonly #folder: string;
  readonly #entries = new Map<string, Entry>();

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /**
   * Opens or begins the journal in `folder`. A journal of another `fingerprint` (hash of source and options)
   * is a UsageError: its entries would not be what this run makes.
   */
  static async open(folder: string, fingerprint: string): Promise<Journal> {
    await mkdir(folder, { recursive: true });
    const header = canonicalJson({ format: "pocketllm-journal", version: 1, fingerprint });
    const path = join(folder, HEADER_FILE);
    const found = await readFile(path, "utf8").catch((error: unknown) => {
      if (errorCode(error) === "ENOENT") return null;
      throw error;
    });
    if (found !== null && found !== header)
      throw new UsageError(
        `${folder} was begun with another model or other options: run with those, or delete it to start again`,
      );
    const journal = new Journal(folder);
    if (found === null) await writeAtomically(path, (write) => write(Buffer.from(header)));
    else await journal.#load();
    return journal;
  }

  /** Keeps the whole entries; deletes what a crash left half-written or the disk damaged. */
  async #load(): Promise<void> {
    for (const file of await readdir(this.#folder)) {
      if (file === HEADER_FILE) continue;
      const path = join(this.#folder, file);
      const entry = await readEntry(path);
      if (entry && file === fileName(entry.kind, entry.name)) this.#entries.set(file, entry);
      else await rm(path, { force: true });
    }
  }

  get(kind: EntryKind, name: string): Entry | undefined {
    return this.#entries.get(fileName(kind, name));
  }

  /** All entries of a kind, in no order that a caller may rely on. */
  list(kind: EntryKind): Entry[] {
    return [...this.#entries.values()].filter((entry) => entry.kind === kind);
  }

  /** Writes an entry; when this returns it survives a power cut. An entry of the same name is replaced. */
  async put(
    kind: EntryKind,
    name: string,
    description: JsonValue,
    tensors: readonly StoredTensor[] = [],
  ): Promise<void> {
    const described = tensors.map(({ dtype, shape, data }) => ({
      dtype,
      shape,
      bytes: data.byteLength,
      sha256: sha256(data),
    }));
    const json = canonicalJson({ kind, name, description, tensors: described });
    const first = Buffer.from(`${sha256(json)} ${json}\n`);
    const file = fileName(kind, name);
    const path = join(this.#folder, file);
    await writeAtomically(path, async (write) => {
      await write(first);
      for (const tensor of tensors) await write(tensor.data);
    });
    const placed = withOffsets(described, first.byteLength);
    this.#entries.set(file, { kind, name, path, description, tensors: placed });
  }

  /** All tensors of an entry, their hashes checked. */
  async read(entry: Entry): Promise<StoredTensor[]> {
    const file = await FileSource.open(entry.path);
    try {
      const out: StoredTensor[] = [];
      for (const { dtype, shape, bytes, offset, sha256: expected } of entry.tensors) {
        const data = await file.read(offset, bytes);
        if (sha256(data) !== expected) throw damaged(entry);
        out.push({ dtype, shape, data });
      }
      return out;
    } finally {
      await file.close();
    }
  }

  /** The bytes of one tensor in chunks; throws at the end when they do not match its hash. */
  async *stream(entry: Entry, tensor: EntryTensor): AsyncGenerator<Uint8Array> {
    const file = await FileSource.open(entry.path);
    try {
      const hash = createHash("sha256");
      for (let done = 0; done < tensor.bytes; done += CHUNK_BYTES) {
        const chunk = await file.read(tensor.offset + done, Math.min(CHUNK_BYTES, tensor.bytes - done));
        hash.update(chunk);
        yield chunk;
      }
      if (hash.digest("hex") !== tensor.sha256) throw damaged(entry);
    } finally {
      await file.close();
    }
  }
}

function fileName(kind: EntryKind, name: string): string {
  return `${name}.${kind}`;
}

function damaged(entry: Entry): CorruptFileError {
  return new CorruptFileError(`${entry.path} was damaged on disk: run again with --resume to redo this part`);
}

function withOffsets(tensors: Header["tensors"], start: number): EntryTensor[] {
  let offset = start;
  return tensors.map((tensor) => {
    const placed = { ...tensor, offset };
    offset += tensor.bytes;
    return placed;
  });
}

/** An entry whose every byte matches its hashes, or null. */
async function readEntry(path: string): Promise<Entry | null> {
  const file = await FileSource.open(path);
  try {
    const line = await readLine(file);
    if (line === null || sha256(line.subarray(65)) !== line.toString("latin1", 0, 64)) return null;
    // The hash vouches for the JSON: it is what `put` wrote.
    const header = JSON.parse(line.toString("utf8", 65)) as Header;
    const tensors = withOffsets(header.tensors, line.byteLength + 1);
    if (tensors.reduce((end, tensor) => end + tensor.bytes, line.byteLength + 1) !== file.size) return null;
    for (const tensor of tensors) {
      if (tensorBytes(tensor.dtype, tensor.shape) !== tensor.bytes) return null;
      if ((await hashRange(file, tensor.offset, tensor.bytes)) !== tensor.sha256) return null;
    }
    return { kind: header.kind, name: header.name, path, description: header.description, tensors };
  } finally {
    await file.close();
  }
}

/** The first line without its end, or null when there is none within the limit. */
async function readLine(file: FileSource): Promise<Buffer | null> {
  const limit = Math.min(file.size, MAX_HEADER_BYTES);
  for (let length = Math.min(limit, 65536); ; length = Math.min(limit, length * 8)) {
    const bytes = Buffer.from((await file.read(0, length)).buffer);
    const end = bytes.indexOf(10);
    if (end >= 66) return bytes.subarray(0, end);
    if (end >= 0 || length === limit) return null;
  }
}
