/**
 * The thread in which parquet.ts reads. Before anything is decoded all page headers are walked: the library makes
 * arrays and buffers of the sizes that they claim, and some bytes can claim gigabytes.
 */
import { parentPort, workerData } from "node:worker_threads";
import * as zlib from "node:zlib";
import { brotliDecompressSync, gunzipSync, type ZlibOptions } from "node:zlib";
import type { Compressors, FileMetaData, PageHeader } from "hyparquet";
import { CorruptFileError, InputError } from "../errors.js";

export interface ParquetQuestion {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly columns: readonly string[];
  readonly where: string;
}

export type ParquetAnswer =
  | { readonly rows: readonly Readonly<Record<string, unknown>>[] }
  | { readonly error: string; readonly missing?: boolean };

/** Benchmarks have some ten thousand questions of some ten values. */
const MAX_ROWS = 1_000_000;
const MAX_VALUES = 20_000_000;
const MAX_DECODED_BYTES = 1024 * 2 ** 20;

async function readRows({ bytes, columns, where }: ParquetQuestion): Promise<Record<string, unknown>[]> {
  const { parquetMetadata, parquetReadObjects } = await import("hyparquet");
  const { parquetHeader } = await import("hyparquet/src/column.js");
  const metadata = await decoded(where, () => parquetMetadata(bytes, { geoparquet: false }));
  const names = await decoded(where, () => topLevel(metadata));
  for (const column of columns)
    if (!names.includes(column))
      throw new InputError(
        `${where}: has no column ${column}, only ${names.slice(0, 20).map(plain).join(", ")}`,
      );
  const rows = Number(metadata.num_rows);
  if (!(rows >= 0 && rows <= MAX_ROWS))
    throw new CorruptFileError(`${where}: says it has ${rows} rows, at most ${MAX_ROWS} are read`);
  await decoded(where, () => checkPages(metadata, columns, bytes, parquetHeader, where));
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const read = await decoded(where, () =>
    parquetReadObjects({
      file: { byteLength: buffer.byteLength, slice: (start, end) => buffer.slice(start, end) },
      metadata,
      columns: [...columns],
      compressors: COMPRESSORS,
      parsers: { stringFromBytes: (text) => text && UTF8.decode(text) },
    }),
  );
  if (read.length !== rows)
    throw new CorruptFileError(`${where}: has ${read.length} rows where its end says ${rows}`);
  return read;
}

/** The library's errors of all kinds are about the file. */
async function decoded<T>(where: string, decode: () => T | Promise<T>): Promise<T> {
  try {
    return await decode();
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new CorruptFileError(`${where}: cannot be read as parquet (${plain((error as Error).message)})`, {
      cause: error,
    });
  }
}

function topLevel({ schema }: FileMetaData): string[] {
  const names: string[] = [];
  let at = 1;
  const skip = (): void => {
    const children = schema[at++].num_children ?? 0;
    for (let i = 0; i < children; i++) skip();
  };
  while (at < schema.length) {
    names.push(schema[at].name);
    skip();
  }
  return names;
}

interface HeaderReader {
  view: DataView;
  offset: number;
}

function checkPages(
  { row_groups, num_rows }: FileMetaData,
  columns: readonly string[],
  bytes: Uint8Array,
  parquetHeader: (reader: HeaderReader) => PageHeader,
  where: string,
): void {
  const claims = (what: string) =>
    new CorruptFileError(`${where}: claims ${what}: it is damaged or made to harm`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let rows = 0;
  let values = 0;
  let decodedBytes = 0;
  for (const group of row_groups) {
    rows += Number(group.num_rows);
    for (const { meta_data: chunk, file_path } of group.columns) {
      if (!chunk || file_path) throw claims("parts in other files");
      if (!columns.includes(chunk.path_in_schema[0])) continue;
      // The library's own rules of where a column begins and ends.
      const start = Number(chunk.dictionary_page_offset || chunk.data_page_offset);
      const end = start + Number(chunk.total_compressed_size);
      if (!(start >= 4 && end <= bytes.byteLength && start <= end)) throw claims("bytes outside of the file");
      const reader = { view, offset: start };
      while (reader.offset < end - 1) {
        const header = parquetHeader(reader);
        const { compressed_page_size: stored, uncompressed_page_size: size } = header;
        if (!(stored >= 0 && size >= 0 && reader.offset + stored <= end))
          throw claims("pages outside of the file");
        reader.offset += stored;
        const page = header.data_page_header ?? header.data_page_header_v2 ?? header.dictionary_page_header;
        const count = page?.num_values ?? 0;
        if (!(count >= 0)) throw claims(`${count} values`);
        values += count;
        decodedBytes += size;
        if (values > MAX_VALUES) throw claims(`more than ${MAX_VALUES} values`);
        if (decodedBytes > MAX_DECODED_BYTES) throw claims(`more than ${MAX_DECODED_BYTES} bytes of data`);
      }
    }
  }
  if (rows !== Number(num_rows)) throw claims(`${num_rows} rows, and ${rows} in its groups`);
}

/** The library's own takes a U+FEFF at a text's start for a mark, and leaves it out. */
const UTF8 = new TextDecoder("utf-8", { ignoreBOM: true, fatal: true });

/** Beside the library's SNAPPY, which is what the hub's conversions have. */
const COMPRESSORS: Compressors = {
  GZIP: (input, length) => gunzipSync(input, limited(length)),
  BROTLI: (input, length) => brotliDecompressSync(input, limited(length)),
  ZSTD(input, length) {
    const { zstdDecompressSync: decompress } = zlib as { zstdDecompressSync?: typeof gunzipSync };
    if (!decompress) throw new Error("it is compressed by zstd: Node 22.15 or newer reads that");
    return decompress(input, limited(length));
  },
};

function limited(length: number): ZlibOptions {
  return { maxOutputLength: Math.max(1, length) };
}

/** A text from a file within a line of ours. */
function plain(text: string): string {
  return text.slice(0, 120).replace(/[^ -~]/g, "?");
}

async function answer(): Promise<ParquetAnswer> {
  try {
    return { rows: await readRows(workerData as ParquetQuestion) };
  } catch (error) {
    if (!(error instanceof InputError)) throw error;
    return { error: error.message, missing: !(error instanceof CorruptFileError) };
  }
}

parentPort?.postMessage(await answer());
