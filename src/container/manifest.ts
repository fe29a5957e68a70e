/**
 * `pocketllm.json`, the manifest: SHA-256 and size of every file and tensor, the codec's parameters of every
 * coded layer, how the folder was made. Parsed strictly, since it comes from outside: every count, size and
 * name is bounded before it is used. The layout is docs/format.md, "The manifest".
 *
 * Not here: whether the files agree with it (folder.ts, verify.ts) or the codec's parameters make sense (the codecs).
 */

import { ADAPTER_CONFIG, ADAPTER_WEIGHTS, type AdapterBits } from "../adapter/peft-config.js";
import { parseJsonObject } from "../checkpoint/json.js";
import type { JsonValue } from "../codec/coded.js";
import { CorruptFileError, InputError } from "../errors.js";
import { DTYPE_BYTES, type DType } from "../tensor/dtype.js";
import { canonicalJson, JsonField } from "./json.js";
import { isName, SUFFIX_PATTERN, storedName } from "./layer.js";

export const MANIFEST_FILE = "pocketllm.json";
export const FORMAT_VERSION = 1;

/** SHA-256 of bytes as 64 lower-case hex digits: node:crypto here, WebCrypto in a browser. */
export type Sha256 = (bytes: Uint8Array) => string | Promise<string>;

export type JsonObject = { readonly [key: string]: JsonValue };

export interface FileEntry {
  readonly bytes: number;
  readonly sha256: string;
}

export interface TensorEntry extends FileEntry {
  /** The safetensors file that holds it. */
  readonly file: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
}

/** One coded matrix: everything but its bytes. */
export interface CodedEntry {
  readonly method: "trellis" | "meta";
  readonly rows: number;
  readonly columns: number;
  readonly parameters: JsonObject;
  /** Suffixes of its stored tensors. */
  readonly tensors: readonly string[];
}

export interface TierEntry {
  readonly rows: readonly [start: number, end: number];
  readonly entry: CodedEntry;
}

export interface TieredEntry {
  readonly rows: number;
  readonly columns: number;
  readonly tiers: readonly TierEntry[];
}

export type LayerEntry = CodedEntry | TieredEntry;

/** How the folder was made. No times, no machine names: the same inputs and options give the same bytes. */
export interface Provenance {
  readonly tool: string;
  readonly toolVersion: string;
  /** The options of the run that change its result. */
  readonly options: JsonObject;
  readonly source: { readonly format: string; readonly sha256: string };
  /** File names without folders. */
  readonly calibration: readonly { readonly name: string; readonly bytes: number; readonly sha256: string }[];
  /** Anything measured on the way, such as errors by layer. */
  readonly measured?: JsonObject;
}

export interface Manifest {
  readonly version: typeof FORMAT_VERSION;
  readonly provenance: Provenance;
  /** Of a folder with an adapter: its files are `adapter_config.json` and `adapter_model.safetensors`. */
  readonly adapter?: { readonly bits: AdapterBits } | undefined;
  /** Every file of the folder but the manifest. */
  readonly files: ReadonlyMap<string, FileEntry>;
  /** Coded layers, in the order of the model. */
  readonly layers: ReadonlyMap<string, LayerEntry>;
  /** Every tensor of the safetensors files, in the order of the files. */
  readonly tensors: ReadonlyMap<string, TensorEntry>;
}

/**
 * Bounds against hostile manifests, generous for real ones: Llama-3.1-405B coded has 883 layers and about
 * 2,700 tensors, 0.5 MB of manifest.
 */
const LIMITS = {
  manifestBytes: 64 * 2 ** 20,
  files: 10_000,
  layers: 100_000,
  tensors: 400_000,
  tiers: 64,
  tensorsPerMatrix: 16,
  rank: 8,
  /** Rows or columns of a matrix, elements along an axis. */
  dimension: 2 ** 40,
  side: 2 ** 26,
  bytes: 2 ** 44,
  calibrationFiles: 10_000,
  jsonDepth: 8,
} as const;
export const MAX_MANIFEST_BYTES = LIMITS.manifestBytes;

const HEX = /^[0-9a-f]{64}$/;
const FILE_PATTERN = /^[A-Za-z0-9_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*$/;
const DTYPES = Object.keys(DTYPE_BYTES) as DType[];

/** A file's name inside the folder: no separators, no leading dot, no "..", at most 255 characters. */
export function isFileName(name: string): boolean {
  return name.length <= 255 && FILE_PATTERN.test(name) && name !== MANIFEST_FILE && name !== "__proto__";
}

export function isTieredEntry(entry: LayerEntry): entry is TieredEntry {
  return "tiers" in entry;
}

/** The coded matrices of a layer with the names of their stored tensors. */
export function codedEntries(layer: string, entry: LayerEntry): { entry: CodedEntry; names: string[] }[] {
  const parts = isTieredEntry(entry) ? entry.tiers.map((tier) => tier.entry) : [entry];
  return parts.map((part, i) => ({
    entry: part,
    names: part.tensors.map((suffix) => storedName(layer, isTieredEntry(entry) ? i : null, suffix)),
  }));
}

// The file ends with this member, whose value is the hash of all bytes before it.
const SEAL = /"sha256":"([0-9a-f]{64})"\}\n$/;
const SEAL_BYTES = '"sha256":""}\n'.length + 64;

/** The manifest's bytes: an entry a line, in the given order; the last member seals everything before it. */
export async function writeManifest(manifest: Manifest, sha256: Sha256): Promise<Uint8Array> {
  const block = <T>(map: ReadonlyMap<string, T>, line: (value: T) => JsonValue) =>
    `{\n${[...map].map(([key, value]) => `${JSON.stringify(key)}:${canonicalJson(line(value))}`).join(",\n")}\n}`;
  const body = [
    `{"format":"pocketllm","version":${manifest.version}`,
    `"provenance":${canonicalJson(manifest.provenance as unknown as JsonValue)}`,
    ...(manifest.adapter ? [`"adapter":${canonicalJson(manifest.adapter)}`] : []),
    `"files":${block(manifest.files, (file) => ({ ...file }))}`,
    `"layers":${block(manifest.layers, layerJson)}`,
    `"tensors":${block(manifest.tensors, (tensor) => ({ ...tensor }))}`,
    "",
  ].join(",\n");
  const bytes = new TextEncoder().encode(body);
  const seal = new TextEncoder().encode(`"sha256":"${await sha256(bytes)}"}\n`);
  const out = new Uint8Array(bytes.length + seal.length);
  out.set(bytes);
  out.set(seal, bytes.length);
  if (out.length > LIMITS.manifestBytes)
    throw new InputError(
      `the manifest would be ${out.length} bytes, at most ${LIMITS.manifestBytes} are read`,
    );
  return out;
}

function layerJson(entry: LayerEntry): JsonValue {
  const coded = ({ method, columns, rows, parameters, tensors }: CodedEntry) => ({
    method,
    columns,
    rows,
    parameters,
    tensors,
  });
  if (!isTieredEntry(entry)) return coded(entry);
  const tiers = entry.tiers.map((tier) => ({ ...coded(tier.entry), rows: tier.rows }));
  return { rows: entry.rows, columns: entry.columns, tiers };
}

/**
 * Parses and checks a manifest. `path` is for messages. Throws CorruptFileError naming the field, and
 * InputError for a version that this program does not know.
 */
export async function parseManifest(bytes: Uint8Array, path: string, sha256: Sha256): Promise<Manifest> {
  if (bytes.length > LIMITS.manifestBytes)
    throw new CorruptFileError(`${path} is ${bytes.length} bytes, at most ${LIMITS.manifestBytes} are read`);
  const root = new JsonField(parseJsonObject(bytes, path), `${path}:`);
  // Before anything else, so that the folder of a later version is called that and not damaged.
  if (root.get("format").string() !== "pocketllm") root.get("format").fail('is not "pocketllm"');
  const version = root.get("version").integer(0, Number.MAX_SAFE_INTEGER);
  if (version !== FORMAT_VERSION)
    throw new InputError(
      `${path} has format version ${version}, this program reads version ${FORMAT_VERSION}: use a matching pocketllm`,
    );
  const seal = SEAL.exec(new TextDecoder().decode(bytes.subarray(-SEAL_BYTES)));
  if (!seal || seal[1] !== (await sha256(bytes.subarray(0, bytes.length - SEAL_BYTES))))
    throw new CorruptFileError(
      `${path} does not match its own SHA-256: it was damaged or edited; copy it again`,
    );

  const files = new Map<string, FileEntry>();
  for (const [name, field] of root.get("files").entries(LIMITS.files)) {
    if (!isFileName(name)) field.fail("is not a plain file name");
    files.set(name, parseFile(field));
  }
  const tensors = new Map<string, TensorEntry>();
  for (const [name, field] of root.get("tensors").entries(LIMITS.tensors)) {
    if (!isName(name)) field.fail("is not a usable tensor name");
    tensors.set(name, parseTensor(field, files));
  }
  const layers = parseLayers(root.get("layers"), tensors);
  return {
    version: FORMAT_VERSION,
    provenance: parseProvenance(root.get("provenance")),
    ...(root.has("adapter") && { adapter: parseAdapter(root.get("adapter"), files) }),
    files,
    layers,
    tensors,
  };
}

function parseAdapter(field: JsonField, files: ReadonlyMap<string, FileEntry>) {
  for (const file of [ADAPTER_CONFIG, ADAPTER_WEIGHTS])
    if (!files.has(file)) field.fail(`needs ${file}, which the manifest does not list`);
  return { bits: field.get("bits").oneOf([16, 8, 4]) };
}

function parseFile(field: JsonField): FileEntry {
  return { bytes: field.get("bytes").integer(0, LIMITS.bytes), sha256: field.get("sha256").string(HEX) };
}

function parseTensor(field: JsonField, files: ReadonlyMap<string, FileEntry>): TensorEntry {
  const { bytes, sha256 } = parseFile(field);
  const file = field.get("file").string();
  const holder = files.get(file);
  if (!holder || !file.endsWith(".safetensors"))
    return field.get("file").fail("is not a safetensors file of the folder");
  const dtype = field.get("dtype").oneOf(DTYPES);
  const shape = field
    .get("shape")
    .items(LIMITS.rank)
    .map((n) => n.integer(0, LIMITS.dimension));
  if (shape.reduce((product, n) => product * n, DTYPE_BYTES[dtype]) !== bytes)
    field.get("bytes").fail(`is ${bytes}, which is not ${dtype} [${shape.join(", ")}]`);
  if (bytes > holder.bytes) field.get("bytes").fail(`is ${bytes}, more than ${file} holds`);
  return { file, dtype, shape, bytes, sha256 };
}

function parseLayers(field: JsonField, tensors: ReadonlyMap<string, TensorEntry>): Map<string, LayerEntry> {
  const layers = new Map<string, LayerEntry>();
  const owners = new Map<string, string>();
  for (const [name, value] of field.entries(LIMITS.layers)) {
    if (!isName(name)) value.fail("is not a usable layer name");
    const entry = value.has("tiers") ? parseTiered(value) : parseCoded(value, null);
    for (const stored of codedEntries(name, entry).flatMap((part) => part.names)) {
      if (!tensors.has(stored)) value.fail(`needs tensor ${stored}, which the manifest does not list`);
      const other = owners.get(stored);
      if (other !== undefined) value.fail(`and layer ${other} both claim tensor ${stored}`);
      owners.set(stored, name);
    }
    if (tensors.has(`${name}.weight`)) value.fail(`is coded, but ${name}.weight is stored too`);
    layers.set(name, entry);
  }
  return layers;
}

function parseCoded(field: JsonField, rows: number | null): CodedEntry {
  const parameters = field.get("parameters");
  parameters.object();
  const tensors = field
    .get("tensors")
    .items(LIMITS.tensorsPerMatrix)
    .map((suffix) => suffix.string(SUFFIX_PATTERN));
  if (new Set(tensors).size !== tensors.length) field.get("tensors").fail("names a tensor twice");
  return {
    method: field.get("method").oneOf(["trellis", "meta"]),
    rows: rows ?? field.get("rows").integer(1, LIMITS.side),
    columns: field.get("columns").integer(1, LIMITS.side),
    parameters: parameters.json(LIMITS.jsonDepth) as JsonObject,
    tensors,
  };
}

function parseTiered(field: JsonField): TieredEntry {
  const rows = field.get("rows").integer(1, LIMITS.side);
  const columns = field.get("columns").integer(1, LIMITS.side);
  let next = 0;
  const tiers = field
    .get("tiers")
    .items(LIMITS.tiers)
    .map((tier): TierEntry => {
      const range = tier.get("rows");
      const bounds = range.items(2);
      if (bounds.length !== 2) range.fail("is not [start, end]");
      const start = bounds[0].integer(next, next);
      const end = bounds[1].integer(start + 1, rows);
      next = end;
      const entry = parseCoded(tier, end - start);
      if (entry.columns !== columns)
        tier.get("columns").fail(`is ${entry.columns}, the layer has ${columns}`);
      return { rows: [start, end], entry };
    });
  if (next !== rows) field.get("tiers").fail(`end at row ${next} of ${rows}`);
  return { rows, columns, tiers };
}

function parseProvenance(field: JsonField): Provenance {
  const source = field.get("source");
  const object = (key: string) => {
    const value = field.get(key);
    value.object();
    return value.json(LIMITS.jsonDepth) as JsonObject;
  };
  return {
    tool: field.get("tool").string(),
    toolVersion: field.get("toolVersion").string(),
    options: object("options"),
    source: { format: source.get("format").string(), sha256: source.get("sha256").string(HEX) },
    calibration: field
      .get("calibration")
      .items(LIMITS.calibrationFiles)
      .map((file) => ({ name: file.get("name").string(), ...parseFile(file) })),
    ...(field.has("measured") ? { measured: object("measured") } : {}),
  };
}
