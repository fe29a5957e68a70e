/**
 * The safetensors format: 8 bytes of header length (little-endian), a JSON header of names, dtypes, shapes and
 * offsets, then the data. Reading is safe on hostile files: everything is checked against the file's size
 * before anything is allocated. Free of Node; the streaming writer is in safetensors-write.ts.
 */
import { CorruptFileError } from "../errors.js";
import { bytesToF32, DTYPE_BYTES, type DType } from "../tensor/dtype.js";
import type { ByteSource } from "./byte-source.js";
import { isObject, parseJsonObject, quote } from "./json.js";

/**
 * Longest header accepted. Real ones take 60 to 150 bytes a tensor, 40 kB for a 7B model; the reference
 * implementation stops at 100 MB, which as parsed JSON would be near 1 GB of memory.
 */
export const MAX_HEADER_BYTES = 16 * 2 ** 20;
/** Most tensors of one file. Large mixture-of-experts models have some thousands in a shard. */
export const MAX_TENSORS = 100_000;
/** Most dimensions of a tensor. */
const MAX_RANK = 8;
/** Bytes read at a time when a tensor is converted: bounds the memory beside the result. */
const CHUNK_BYTES = 4 * 2 ** 20;

export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

export interface SafetensorsTensor extends SafetensorsEntry {
  /** Where the data begin, in bytes from the start of the file. */
  readonly offset: number;
  readonly byteLength: number;
}

export interface SafetensorsHeader {
  /** By name, in the order of the data. */
  readonly tensors: ReadonlyMap<string, SafetensorsTensor>;
  /** The header's `__metadata__`, empty where it has none. */
  readonly metadata: ReadonlyMap<string, string>;
  /** Bytes before the data: 8 + header length. */
  readonly dataOffset: number;
}

/** Bytes of the data of a tensor; exact, or infinite when the product passes 2^53. */
export function tensorBytes(dtype: DType, shape: readonly number[]): number {
  if (shape.includes(0)) return 0;
  const bytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype]);
  return bytes <= Number.MAX_SAFE_INTEGER ? bytes : Number.POSITIVE_INFINITY;
}

/**
 * Reads and checks the header: data must fill the rest of the file exactly, without overlap and without hole,
 * and each tensor must be as long as its shape and dtype say. CorruptFileError names file and tensor.
 */
export async function readSafetensorsHeader(source: ByteSource): Promise<SafetensorsHeader> {
  const file = source.name;
  if (source.size < 8)
    throw new CorruptFileError(`${file}: has ${source.size} bytes, too few for a safetensors file`);
  const prefix = await source.read(0, 8);
  const claimed = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (claimed > BigInt(source.size - 8))
    throw new CorruptFileError(
      `${file}: claims a header of ${claimed} bytes but has ${source.size} in all; the file is damaged or cut short: get it again`,
    );
  if (claimed > BigInt(MAX_HEADER_BYTES))
    throw new CorruptFileError(
      `${file}: claims a header of ${claimed} bytes, more than the limit of ${MAX_HEADER_BYTES}`,
    );
  const headerBytes = Number(claimed);
  return parseSafetensorsHeader(await source.read(8, headerBytes), source.size - 8 - headerBytes, file);
}

/** `json`: the header without its length; `dataBytes`: bytes that follow it in the file. */
export function parseSafetensorsHeader(json: Uint8Array, dataBytes: number, file: string): SafetensorsHeader {
  const header = parseJsonObject(json, `${file} (safetensors header)`);
  const dataOffset = 8 + json.byteLength;
  const metadata = parseMetadata(header["__metadata__"], file);
  const names = Object.keys(header).filter((name) => name !== "__metadata__");
  if (names.length > MAX_TENSORS)
    throw new CorruptFileError(
      `${file}: lists ${names.length} tensors, more than the limit of ${MAX_TENSORS}`,
    );
  const tensors = names.map((name) => parseEntry(name, header[name], dataOffset, dataBytes, file));
  tensors.sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  let end = dataOffset;
  let previous = "";
  for (const { name, offset, byteLength } of tensors) {
    if (offset < end)
      throw new CorruptFileError(
        `${file}: the data of tensors ${quote(previous)} and ${quote(name)} overlap`,
      );
    if (offset > end)
      throw new CorruptFileError(
        `${file}: ${offset - end} bytes before tensor ${quote(name)} belong to no tensor`,
      );
    end = offset + byteLength;
    previous = name;
  }
  if (end !== dataOffset + dataBytes)
    throw new CorruptFileError(`${file}: the last ${dataOffset + dataBytes - end} bytes belong to no tensor`);
  return { tensors: new Map(tensors.map((tensor) => [tensor.name, tensor])), metadata, dataOffset };
}

function parseMetadata(value: unknown, file: string): Map<string, string> {
  const metadata = new Map<string, string>();
  if (value === undefined || value === null) return metadata;
  if (!isObject(value)) throw new CorruptFileError(`${file}: __metadata__ is not an object`);
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== "string")
      throw new CorruptFileError(`${file}: __metadata__ entry ${quote(key)} is not a string`);
    metadata.set(key, text);
  }
  return metadata;
}

function parseEntry(
  name: string,
  entry: unknown,
  dataOffset: number,
  dataBytes: number,
  file: string,
): SafetensorsTensor {
  const tensor = `${file}: tensor ${quote(name)}`;
  if (!isObject(entry)) throw new CorruptFileError(`${tensor} is not described by an object`);
  const { dtype, shape, data_offsets: offsets } = entry;
  if (typeof dtype !== "string" || !Object.hasOwn(DTYPE_BYTES, dtype))
    throw new CorruptFileError(
      `${tensor} has the type ${quote(String(dtype))}; types that can be read are ${Object.keys(DTYPE_BYTES).join(", ")}`,
    );
  if (!isSizes(shape) || shape.length > MAX_RANK)
    throw new CorruptFileError(`${tensor} has no valid shape (at most ${MAX_RANK} whole numbers)`);
  if (!isSizes(offsets) || offsets.length !== 2)
    throw new CorruptFileError(`${tensor} has no valid data_offsets (two whole numbers)`);
  const [begin, end] = offsets;
  if (begin > end || end > dataBytes)
    throw new CorruptFileError(
      `${tensor} claims bytes ${begin} to ${end} of ${dataBytes}; the file is damaged or cut short: get it again`,
    );
  const bytes = tensorBytes(dtype as DType, shape);
  if (bytes !== end - begin)
    throw new CorruptFileError(
      `${tensor} has ${end - begin} bytes, but ${dtype} of shape [${shape.join(", ")}] takes ${bytes}`,
    );
  return { name, dtype: dtype as DType, shape, offset: dataOffset + begin, byteLength: bytes };
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);
}

/**
 * The bytes before the data: length and JSON header, padded with spaces so that the data begin at a multiple
 * of 8. Tensors lie in the order given, without gaps. RangeError on a name given twice.
 */
export function buildSafetensorsHeader(
  entries: readonly SafetensorsEntry[],
  metadata?: Readonly<Record<string, string>>,
): Uint8Array {
  const seen = new Set<string>(["__metadata__"]);
  const fields: string[] = [];
  if (metadata) fields.push(`"__metadata__":${JSON.stringify(metadata)}`);
  let begin = 0;
  for (const { name, dtype, shape } of entries) {
    if (seen.has(name)) throw new RangeError(`safetensors: the name ${quote(name)} cannot be written twice`);
    seen.add(name);
    const end = begin + tensorBytes(dtype, shape);
    if (!Number.isSafeInteger(end)) throw new RangeError(`safetensors: ${quote(name)} is too large`);
    fields.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [begin, end] })}`);
    begin = end;
  }
  const json = new TextEncoder().encode(`{${fields.join(",")}}`);
  const padded = Math.ceil(json.byteLength / 8) * 8;
  const bytes = new Uint8Array(8 + padded).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(json, 8);
  return bytes;
}

/** An opened safetensors file: its header is in memory, its tensors are read when asked for. */
export class SafetensorsFile {
  private constructor(
    readonly source: ByteSource,
    readonly header: SafetensorsHeader,
  ) {}

  static async open(source: ByteSource): Promise<SafetensorsFile> {
    return new SafetensorsFile(source, await readSafetensorsHeader(source));
  }

  get tensors(): ReadonlyMap<string, SafetensorsTensor> {
    return this.header.tensors;
  }

  /** CorruptFileError when the file has no tensor of that name. */
  tensor(name: string): SafetensorsTensor {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new CorruptFileError(`${this.source.name}: has no tensor ${quote(name)}`);
    return tensor;
  }

  /** A tensor's bytes as they are stored. */
  async readBytes(name: string): Promise<Uint8Array> {
    const { offset, byteLength } = this.tensor(name);
    return await this.source.read(offset, byteLength);
  }

  /** A float tensor as f32, row-major; holds the result and 4 MiB at most. Values are not checked. */
  async readF32(name: string): Promise<Float32Array> {
    const { dtype, offset, byteLength, shape } = this.tensor(name);
    if (!dtype.includes("F"))
      throw new CorruptFileError(
        `${this.source.name}: tensor ${quote(name)} holds ${dtype}; weights must be F32, F16 or BF16`,
      );
    const itemBytes = DTYPE_BYTES[dtype];
    const values = new Float32Array(shape.reduce((product, size) => product * size, 1));
    for (let at = 0; at < byteLength; at += CHUNK_BYTES) {
      const bytes = await this.source.read(offset + at, Math.min(CHUNK_BYTES, byteLength - at));
      bytesToF32(bytes, dtype, values.subarray(at / itemBytes, (at + bytes.byteLength) / itemBytes));
    }
    return values;
  }
}
