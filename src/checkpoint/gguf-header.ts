/**
 * The header of a GGUF file (version 2 or 3, little-endian): metadata and the table of tensors. Every count is
 * bounded by the bytes that are left before anything is allocated for it.
 *
 * The parser of @huggingface/gguf is not used for this: it strips a leading U+FEFF from strings (token 30143
 * of Llama 2 becomes empty), cuts a long string at its 2 MB chunks, and reads past the end of a short file as
 * zeros. Its enumerations are used, and the tests compare the two.
 */
import { GGMLQuantizationType, GGUFValueType } from "@huggingface/gguf";
import { CorruptFileError, InputError } from "../errors.js";
import type { ByteSource } from "./byte-source.js";
import { BLOCK_FORMATS } from "./gguf-blocks.js";
import { quote } from "./json.js";

/** The largest headers (vocabularies of 256,000 tokens with merges and scores) are near 16 MB. */
const MAX_HEADER_BYTES = 128 * 2 ** 20;
const MAX_TENSORS = 100_000;
const MAX_KEYS = 10_000;
/** A vocabulary of 256,000 tokens has about 600,000 merges. */
const MAX_ARRAY = 2 ** 22;
const MAX_RANK = 4;
/** Read first; doubled while the header does not end in it. */
const FIRST_READ = 2 * 2 ** 20;

export type GgufScalar = number | bigint | boolean | string;
export type GgufValue = GgufScalar | readonly GgufScalar[];
export type GgufMetadata = ReadonlyMap<string, GgufValue>;

export interface GgufTensor {
  readonly name: string;
  /** Row-major, as everywhere in this project (GGUF lists the fastest dimension first). */
  readonly shape: readonly number[];
  /** A key of BLOCK_FORMATS. */
  readonly type: string;
  /** From the start of the file. */
  readonly offset: number;
  readonly byteLength: number;
}

export interface GgufHeader {
  readonly metadata: GgufMetadata;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
}

/** Reads and checks the header. CorruptFileError or InputError, one line, naming key or tensor. */
export async function readGgufHeader(source: ByteSource): Promise<GgufHeader> {
  for (let length = FIRST_READ; ; length *= 2) {
    const bytes = await source.read(0, Math.min(length, source.size, MAX_HEADER_BYTES));
    try {
      return parseGgufHeader(new Cursor(bytes, source));
    } catch (error) {
      if (error !== CUT) throw error;
    }
    if (bytes.byteLength === source.size)
      throw new CorruptFileError(
        `${source.name}: ends inside its header; the file is cut short: get it again`,
      );
    if (bytes.byteLength === MAX_HEADER_BYTES)
      throw new CorruptFileError(
        `${source.name}: its header is longer than the limit of ${MAX_HEADER_BYTES} bytes`,
      );
  }
}

/** Thrown by Cursor when the bytes read so far end inside the header. */
const CUT = Symbol("header continues");

class Cursor {
  at = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  // ignoreBOM keeps a leading U+FEFF, which is a token of some vocabularies.
  readonly #text = new TextDecoder("utf-8", { ignoreBOM: true });

  constructor(
    bytes: Uint8Array,
    readonly source: ByteSource,
  ) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  /** Bytes of the file after this point: what a count is held against. */
  get left(): number {
    return this.source.size - this.at;
  }

  #take(bytes: number): number {
    const at = this.at;
    if (at + bytes > this.#bytes.byteLength) throw CUT;
    this.at += bytes;
    return at;
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true);
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true);
  }

  /** A count of things of at least `itemBytes` bytes each. */
  count(what: string, itemBytes: number, limit: number): number {
    const count = this.u64();
    if (count > BigInt(limit) || count * BigInt(itemBytes) > BigInt(this.left))
      throw new CorruptFileError(
        `${this.source.name}: claims ${count} ${what}, more than ${count > BigInt(limit) ? `the limit of ${limit}` : `its ${this.source.size} bytes can hold`}; the file is damaged: get it again`,
      );
    return Number(count);
  }

  string(what: string): string {
    const length = this.count(`bytes for ${what}`, 1, MAX_HEADER_BYTES);
    const at = this.#take(length);
    return this.#text.decode(this.#bytes.subarray(at, at + length));
  }

  scalar(type: number, key: string): GgufScalar {
    const view = this.#view;
    switch (type) {
      case GGUFValueType.UINT8:
        return view.getUint8(this.#take(1));
      case GGUFValueType.INT8:
        return view.getInt8(this.#take(1));
      case GGUFValueType.UINT16:
        return view.getUint16(this.#take(2), true);
      case GGUFValueType.INT16:
        return view.getInt16(this.#take(2), true);
      case GGUFValueType.UINT32:
        return this.u32();
      case GGUFValueType.INT32:
        return view.getInt32(this.#take(4), true);
      case GGUFValueType.FLOAT32:
        return view.getFloat32(this.#take(4), true);
      case GGUFValueType.FLOAT64:
        return view.getFloat64(this.#take(8), true);
      case GGUFValueType.BOOL:
        return view.getUint8(this.#take(1)) !== 0;
      case GGUFValueType.UINT64:
        return smallest(this.u64());
      case GGUFValueType.INT64:
        return smallest(view.getBigInt64(this.#take(8), true));
      case GGUFValueType.STRING:
        return this.string(`the value of ${quote(key)}`);
      default:
        throw new CorruptFileError(
          `${this.source.name}: the metadata key ${quote(key)} has the unknown type ${type}`,
        );
    }
  }

  value(key: string): GgufValue {
    const type = this.u32();
    if (type !== GGUFValueType.ARRAY) return this.scalar(type, key);
    const itemType = this.u32();
    if (itemType === GGUFValueType.ARRAY)
      throw new CorruptFileError(
        `${this.source.name}: the metadata key ${quote(key)} holds arrays of arrays`,
      );
    const count = this.count(`items for ${quote(key)}`, SCALAR_BYTES[itemType] ?? 1, MAX_ARRAY);
    const items: GgufScalar[] = [];
    for (let i = 0; i < count; i++) items.push(this.scalar(itemType, key));
    return items;
  }
}

/** Least bytes of a value, by type number: a string is at least its length. */
const SCALAR_BYTES: readonly (number | undefined)[] = [1, 1, 2, 2, 4, 4, 4, 1, 8, undefined, 8, 8, 8];

function smallest(value: bigint): number | bigint {
  const n = Number(value);
  return Number.isSafeInteger(n) ? n : value;
}

function parseGgufHeader(cursor: Cursor): GgufHeader {
  const file = cursor.source.name;
  if (cursor.left < 24) throw new CorruptFileError(`${file}: has too few bytes for a GGUF file`);
  if (cursor.u32() !== 0x46554747) throw new CorruptFileError(`${file}: does not begin with "GGUF"`);
  const version = cursor.u32();
  if (version !== 2 && version !== 3)
    throw new InputError(
      `${file}: ${version > 0xffff ? "big-endian GGUF is" : `GGUF version ${version} is`} not supported (only little-endian 2 and 3)`,
    );
  // A tensor takes at least 32 bytes: name length, rank, one dimension, type, offset. A key takes at least 13.
  const tensorCount = cursor.count("tensors", 32, MAX_TENSORS);
  const keyCount = cursor.count("metadata keys", 13, MAX_KEYS);
  const metadata = new Map<string, GgufValue>();
  for (let i = 0; i < keyCount; i++) {
    const key = cursor.string("a metadata key");
    if (metadata.has(key))
      throw new CorruptFileError(`${file}: the metadata key ${quote(key)} appears twice`);
    metadata.set(key, cursor.value(key));
  }
  const entries: RawTensor[] = [];
  for (let i = 0; i < tensorCount; i++) entries.push(readTensor(cursor));
  const alignment = metadata.get("general.alignment") ?? 32;
  if (
    typeof alignment !== "number" ||
    alignment < 1 ||
    alignment > 2 ** 20 ||
    (alignment & (alignment - 1)) !== 0
  )
    throw new CorruptFileError(`${file}: general.alignment is ${alignment}, expected a power of two`);
  const dataOffset = Math.ceil(cursor.at / alignment) * alignment;
  return { metadata, tensors: placeTensors(entries, dataOffset, alignment, cursor.source) };
}

interface RawTensor {
  readonly name: string;
  readonly dimensions: readonly bigint[];
  readonly type: number;
  readonly offset: bigint;
}

function readTensor(cursor: Cursor): RawTensor {
  const name = cursor.string("a tensor's name");
  const rank = cursor.u32();
  if (rank < 1 || rank > MAX_RANK)
    throw new CorruptFileError(
      `${cursor.source.name}: tensor ${quote(name)} has ${rank} dimensions, expected 1 to ${MAX_RANK}`,
    );
  const dimensions = Array.from({ length: rank }, () => cursor.u64());
  return { name, dimensions, type: cursor.u32(), offset: cursor.u64() };
}

/** Sizes and places of the tensors: inside the file, aligned, without overlap. */
function placeTensors(
  entries: readonly RawTensor[],
  dataOffset: number,
  alignment: number,
  source: ByteSource,
): Map<string, GgufTensor> {
  const file = source.name;
  const placed = entries.map(({ name, dimensions, type, offset }): GgufTensor => {
    const tensor = `${file}: tensor ${quote(name)}`;
    const typeName = GGMLQuantizationType[type];
    const format = typeName === undefined ? undefined : BLOCK_FORMATS.get(typeName);
    if (!format)
      throw new InputError(
        `${tensor} has the type ${typeName ?? `number ${type}`}, which cannot be read; types that can are ${[...BLOCK_FORMATS.keys()].join(", ")}`,
      );
    const weights = dimensions.reduce((product, size) => product * size, 1n);
    if (dimensions[0] % BigInt(format.weights) !== 0n)
      throw new CorruptFileError(
        `${tensor} has rows of ${dimensions[0]} weights, not a multiple of ${typeName}'s ${format.weights}`,
      );
    const bytes = (weights / BigInt(format.weights)) * BigInt(format.bytes);
    if (BigInt(dataOffset) + offset + bytes > BigInt(source.size))
      throw new CorruptFileError(
        `${tensor} claims ${bytes} bytes from byte ${BigInt(dataOffset) + offset}, but the file ends at ${source.size}; it is damaged or cut short: get it again`,
      );
    if (offset % BigInt(alignment) !== 0n)
      throw new CorruptFileError(`${tensor} is not aligned to ${alignment} bytes`);
    return {
      name,
      shape: dimensions.map(Number).reverse(),
      type: typeName,
      offset: dataOffset + Number(offset),
      byteLength: Number(bytes),
    };
  });
  placed.sort((a, b) => a.offset - b.offset || a.byteLength - b.byteLength);
  const tensors = new Map<string, GgufTensor>();
  let previous: GgufTensor | undefined;
  for (const tensor of placed) {
    if (previous && tensor.offset < previous.offset + previous.byteLength)
      throw new CorruptFileError(
        `${file}: the data of tensors ${quote(previous.name)} and ${quote(tensor.name)} overlap`,
      );
    if (tensors.has(tensor.name))
      throw new CorruptFileError(`${file}: tensor ${quote(tensor.name)} appears twice`);
    tensors.set(tensor.name, tensor);
    previous = tensor;
  }
  return tensors;
}
