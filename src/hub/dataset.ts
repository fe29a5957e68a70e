/**
 * The parquet files of a data set's split: from the hub's own conversion (branch refs/convert/parquet, files
 * `<config>/<split>/0000.parquet`), or where there is none, from files that the data set itself consists of.
 */
import { createHash } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import { InputError } from "../errors.js";
import { type DatasetId, formatId } from "./id.js";
import { fileIn, type HubOptions, Repository } from "./repository.js";
import { NotOnHubError } from "./request.js";

export interface DatasetSplit {
  readonly name: string;
  readonly config: string;
  readonly split: string;
  /** Of the branch that the files are of. */
  readonly commit: string;
  /** In the order of their rows. */
  readonly files: readonly DatasetFile[];
}

export interface DatasetFile {
  /** Path in the repository. */
  readonly name: string;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Of the bytes read. */
  readonly sha256: string;
}

export const CONVERSION = "refs/convert/parquet";
/** All splits that are measured on have less than 10 MB; the bytes are held in memory. */
const MAX_SPLIT_BYTES = 256 * 2 ** 20;
const MAX_SHARDS = 64;
/** What the hub calls the one config of a data set that names none. */
const UNNAMED = ["default", "plain_text"];

/** Downloads what is missing. InputError, one line, when there is no such data set, config or split. */
export async function fetchSplit(
  { name, config, revision }: DatasetId,
  split: string,
  options: HubOptions,
): Promise<DatasetSplit> {
  const repository = await openFirst(name, revision === null ? [CONVERSION, "main"] : [revision], options);
  const where = formatId({ ...repository.id, revision: "main" });
  const listed = repository.offline ? null : await repository.list({ recursive: true });
  const found = findShards(listed ? [...listed.keys()] : await repository.pathsOnDisk(), split);
  const chosen = chooseConfig(found, config, where, split);
  const shards = found.get(chosen)!;
  if (
    shards.length > MAX_SHARDS ||
    shards.some(({ index, of }, i) => index !== i || (of ?? i + 1) > shards.length)
  )
    throw new InputError(
      `${where}: ${chosen} ${split} is not there as a whole: ${shards.length} parquet files, the last ${shards.at(-1)!.path}`,
    );
  // The first comes last: as long as it is missing no later start takes a part of the split for the whole.
  if (listed) {
    const files = shards.map(({ path }) => listed.get(path)!).reverse();
    checkSize(
      files.reduce((sum, { bytes }) => sum + bytes, 0),
      where,
    );
    await repository.fetch(files);
  }
  await repository.keep();
  const files: DatasetFile[] = [];
  let total = 0;
  for (const { path } of shards) {
    const file = fileIn(repository, path);
    checkSize((total += (await stat(file)).size), where);
    const bytes = new Uint8Array(await readFile(file));
    files.push({ name: path, bytes, sha256: createHash("sha256").update(bytes).digest("hex") });
  }
  return { name, config: chosen, split, commit: repository.commit, files };
}

async function openFirst(
  name: string,
  revisions: readonly string[],
  options: HubOptions,
): Promise<Repository> {
  let first: unknown;
  for (const revision of revisions) {
    try {
      return await Repository.open({ type: "dataset", name, revision }, options);
    } catch (error) {
      if (!(error instanceof NotOnHubError)) throw error;
      first ??= error;
    }
  }
  throw first;
}

interface Shard {
  readonly path: string;
  readonly index: number;
  /** How many there are, where the name says so. */
  readonly of: number | null;
}

/** `config/split/0000.parquet`, `config/split-00000-of-00001.parquet` or, without a config, `data/split-…`. */
function findShards(paths: readonly string[], split: string): Map<string, Shard[]> {
  const found = new Map<string, Shard[]>();
  for (const path of paths) {
    const parts = /^([^/]+)\/([^/]+?)(?:\/(\d{4,6})|-(\d{5})-of-(\d{5}))\.parquet$/.exec(path);
    if (!parts || parts[2] !== split) continue;
    const config = parts[1] === "data" ? UNNAMED[0] : parts[1];
    const shard = {
      path,
      index: Number(parts[3] ?? parts[4]),
      of: parts[5] === undefined ? null : Number(parts[5]),
    };
    found.set(config, [...(found.get(config) ?? []), shard]);
  }
  for (const shards of found.values()) shards.sort((a, b) => a.index - b.index);
  return found;
}

function chooseConfig(
  found: ReadonlyMap<string, unknown>,
  wanted: string | null,
  where: string,
  split: string,
): string {
  const names = [...found.keys()].sort();
  if (wanted !== null && found.has(wanted)) return wanted;
  if (names.length === 0) throw new InputError(`${where}: has no parquet files of a split ${split}`);
  const shown = names.slice(0, 10).join(", ") + (names.length > 10 ? `, and ${names.length - 10} more` : "");
  if (wanted !== null)
    throw new InputError(`${where}: has no config ${wanted} with a split ${split}, only ${shown}`);
  const only = UNNAMED.find((name) => found.has(name)) ?? (names.length === 1 ? names[0] : undefined);
  if (only === undefined)
    throw new InputError(
      `${where}: has several configs: give one as ${where}:${names[0]}; there are ${shown}`,
    );
  return only;
}

function checkSize(bytes: number, where: string): void {
  if (bytes > MAX_SPLIT_BYTES)
    throw new InputError(
      `${where}: the split has ${bytes} bytes of parquet, at most ${MAX_SPLIT_BYTES} are read`,
    );
}
