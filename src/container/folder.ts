/**
 * An opened PocketLLM folder: the manifest checked against the files, then tensors read by range when they are
 * asked for, each against its hash. Free of Node, so that a browser loads the same way; openFolder in
 * reader.ts is for folders on disk.
 */

import type { Adapter } from "../adapter/adapter.js";
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS, parseAdapterConfig } from "../adapter/peft-config.js";
import {
  type AdapterLayout,
  adapterLayout,
  readAdapter,
  type StoredMatrix,
  storedMatrices,
} from "../adapter/stored.js";
import { ConfigReader, parseModelConfig, parseTokenIds } from "../checkpoint/architectures.js";
import type { ByteSource } from "../checkpoint/byte-source.js";
import type { TokenizerFiles } from "../checkpoint/checkpoint.js";
import type { ModelConfig } from "../checkpoint/config.js";
import { type JsonObject, parseJsonObject, quote } from "../checkpoint/json.js";
import { SafetensorsFile } from "../checkpoint/safetensors.js";
import { expectedTensors } from "../checkpoint/tensors.js";
import type { StoredTensor } from "../codec/coded.js";
import { CorruptFileError, InputError } from "../errors.js";
import { bytesToF32 } from "../tensor/dtype.js";
import { codecOf } from "./codecs.js";
import type { FolderSource } from "./folder-source.js";
import { type CodedLayer, matricesOf } from "./layer.js";
import {
  codedEntries,
  type FileEntry,
  type LayerEntry,
  MANIFEST_FILE,
  MAX_MANIFEST_BYTES,
  type Manifest,
  parseManifest,
  type Sha256,
} from "./manifest.js";
import { restoreLayer } from "./restore.js";

/** Most bytes of a JSON file that is read whole; the tokenizer.json of a 262,144-word vocabulary has 33 MB. */
const MAX_JSON_BYTES = 128 * 2 ** 20;

export class PocketFolder {
  /** What the user named: a path, for messages. */
  readonly name: string;
  readonly manifest: Manifest;
  readonly config: ModelConfig;
  /** config.json without `quantization_config`: the original model's. */
  readonly huggingFaceConfig: Readonly<Record<string, unknown>>;
  readonly generationConfig: Readonly<Record<string, unknown>> | null;
  /** Bytes of every weight file on disk, headers included. */
  readonly weightBytes: number;
  /** Bytes of the model's weights in 16 bits: 2 x parameters, a tied matrix once, no file header. */
  readonly bytes16: number;
  readonly #plain: ReadonlySet<string>;
  readonly #adapter: AdapterLayout | undefined;
  readonly #source: FolderSource;
  readonly #files: ReadonlyMap<string, ByteSource>;
  readonly #shards: ReadonlyMap<string, SafetensorsFile>;

  private constructor(source: FolderSource, opened: OpenedFiles) {
    const { manifest, config, generation } = opened;
    this.name = source.name;
    this.manifest = manifest;
    const { quantization_config: _, ...original } = config;
    this.huggingFaceConfig = original;
    this.generationConfig = generation;
    this.config = modelConfig(source.name, original, generation);
    this.#plain = new Set(plainTensors(manifest));
    checkModel(source.name, this.config, manifest, this.#plain);
    if (opened.adapter) this.#adapter = adapterOf(source.name, this.config, manifest, opened.adapter);
    this.#source = source;
    this.#files = opened.files;
    this.#shards = opened.shards;
    let weightBytes = 0;
    for (const file of opened.shards.keys()) weightBytes += manifest.files.get(file)!.bytes;
    this.weightBytes = weightBytes;
    let parameters = 0;
    for (const { rows, columns } of manifest.layers.values()) parameters += rows * columns;
    for (const name of this.#plain) parameters += elements(manifest.tensors.get(name)!.shape);
    this.bytes16 = 2 * parameters;
  }

  /**
   * Opens a folder and checks it as far as that takes no reading of weights: the manifest, the size of every
   * file, the safetensors headers, the tensors that the model's configuration asks for. Closes `source` on
   * failure. Throws CorruptFileError or InputError, one line.
   */
  static async open(source: FolderSource): Promise<PocketFolder> {
    try {
      const manifest = await readManifest(source);
      const files = new Map<string, ByteSource>();
      for (const [file, listed] of manifest.files) files.set(file, await openListed(source, file, listed));
      const shards = await openShards(manifest, files);
      const json = async (file: string) => {
        const listed = files.get(file);
        return listed ? await readJson(listed, manifest.files.get(file)!, source.sha256) : null;
      };
      const config = await json("config.json");
      if (!config) throw new CorruptFileError(`${source.name}: has no config.json in ${MANIFEST_FILE}`);
      const generation = await json("generation_config.json");
      const adapter = manifest.adapter && (await json(ADAPTER_CONFIG));
      return new PocketFolder(source, { manifest, files, shards, config, generation, adapter });
    } catch (error) {
      await source.close();
      throw error;
    }
  }

  /** Coded layers by name, in the order of the model. */
  get layers(): ReadonlyMap<string, LayerEntry> {
    return this.manifest.layers;
  }

  /** Names of the tensors that are stored as they are (norms, biases, matrices left dense), in order. */
  get plainNames(): readonly string[] {
    return [...this.#plain];
  }

  /**
   * A coded layer, its parameters and tensors checked by its codec; `layer` is the tensor's name without
   * ".weight". Throws RangeError for one that is not coded.
   */
  async coded(layer: string): Promise<CodedLayer> {
    const entry = this.layers.get(layer);
    if (!entry) throw new RangeError(`${layer} is not a coded layer of ${this.name}`);
    const names = codedEntries(layer, entry).flatMap((part) => part.names);
    const stored = await Promise.all(
      names.map(async (name): Promise<StoredTensor> => {
        const { dtype, shape } = this.manifest.tensors.get(name)!;
        return { dtype, shape, data: await this.#read(name) };
      }),
    );
    const coded = restoreLayer(entry, stored);
    for (const matrix of matricesOf(coded)) codecOf(matrix).validate(matrix, `${this.name}: ${layer}`);
    return coded;
  }

  /** A tensor that is stored as it is, as f32, row-major. Throws RangeError for one that is not there. */
  async plain(name: string): Promise<Float32Array> {
    if (!this.#plain.has(name)) throw new RangeError(`${name} is not a plain tensor of ${this.name}`);
    const values = bytesToF32(await this.#read(name), this.manifest.tensors.get(name)!.dtype);
    for (const value of values)
      if (!Number.isFinite(value))
        throw new CorruptFileError(`${this.name}: tensor ${quote(name)} holds a value that is not finite`);
    return values;
  }

  /** The matrices of the folder's adapter; none where it has none. */
  get adapterMatrices(): readonly StoredMatrix[] {
    return this.#adapter ? storedMatrices(this.#adapter) : [];
  }

  /** The folder's adapter, or null where it has none. */
  async adapter(): Promise<Adapter | null> {
    return this.#adapter ? await readAdapter(this.#adapter, (name) => this.#read(name)) : null;
  }

  /** tokenizer.json and tokenizer_config.json, or null where the folder has no tokenizer. */
  async tokenizer(): Promise<TokenizerFiles | null> {
    const tokenizer = await this.#json("tokenizer.json");
    if (!tokenizer) return null;
    return { tokenizer, config: (await this.#json("tokenizer_config.json")) ?? {} };
  }

  async #json(file: string): Promise<JsonObject | null> {
    const opened = this.#files.get(file);
    return opened ? await readJson(opened, this.manifest.files.get(file)!, this.#source.sha256) : null;
  }

  /** The bytes of a tensor, checked against the manifest's hash. */
  async #read(name: string): Promise<Uint8Array> {
    const { file, sha256 } = this.manifest.tensors.get(name)!;
    const bytes = await this.#shards.get(file)!.readBytes(name);
    if ((await this.#source.sha256(bytes)) !== sha256)
      throw new CorruptFileError(
        `${this.name}: tensor ${quote(name)} in ${file} does not match its SHA-256: it is damaged; copy the folder again`,
      );
    return bytes;
  }

  async close(): Promise<void> {
    await this.#source.close();
  }
}

interface OpenedFiles {
  readonly manifest: Manifest;
  readonly files: ReadonlyMap<string, ByteSource>;
  readonly shards: ReadonlyMap<string, SafetensorsFile>;
  readonly config: JsonObject;
  readonly generation: JsonObject | null;
  /** adapter_config.json, where the manifest names an adapter. */
  readonly adapter?: JsonObject | null | undefined;
}

/** Reads and checks the manifest alone. InputError when the folder has none: it is no PocketLLM folder. */
export async function readManifest(source: FolderSource): Promise<Manifest> {
  const file = await source.open(MANIFEST_FILE);
  if (!file) throw new InputError(`${source.name}: has no ${MANIFEST_FILE}, so it is no PocketLLM folder`);
  if (file.size > MAX_MANIFEST_BYTES)
    throw new CorruptFileError(
      `${file.name}: has ${file.size} bytes, more than the limit of ${MAX_MANIFEST_BYTES}`,
    );
  return await parseManifest(await file.read(0, file.size), file.name, source.sha256);
}

/** A file of the manifest, there and of the size that it says. */
export async function openListed(source: FolderSource, file: string, listed: FileEntry): Promise<ByteSource> {
  const opened = await source.open(file, listed);
  if (!opened)
    throw new CorruptFileError(
      `${source.name}: ${file} is missing, but ${MANIFEST_FILE} lists it; copy the folder again`,
    );
  if (opened.size !== listed.bytes)
    throw new CorruptFileError(
      `${opened.name}: has ${opened.size} bytes where ${MANIFEST_FILE} says ${listed.bytes}; copy the folder again`,
    );
  return opened;
}

/** The weight files, each with exactly the tensors that the manifest says. */
async function openShards(
  manifest: Manifest,
  files: ReadonlyMap<string, ByteSource>,
): Promise<Map<string, SafetensorsFile>> {
  const shards = new Map<string, SafetensorsFile>();
  for (const [file, source] of files) {
    if (!file.endsWith(".safetensors")) continue;
    const shard = await SafetensorsFile.open(source);
    checkShard(manifest, file, shard);
    shards.set(file, shard);
  }
  const missing = missingTensor(manifest, shards);
  if (missing) throw missing;
  return shards;
}

/** CorruptFileError unless each tensor in the header of `file` is in the manifest with its type and shape. */
export function checkShard(manifest: Manifest, file: string, shard: SafetensorsFile): void {
  for (const [name, { dtype, shape }] of shard.tensors) {
    const listed = manifest.tensors.get(name);
    if (listed?.file !== file)
      throw new CorruptFileError(`${shard.source.name}: tensor ${quote(name)} is not in ${MANIFEST_FILE}`);
    if (listed.dtype !== dtype || !sameShape(listed.shape, shape))
      throw new CorruptFileError(
        `${shard.source.name}: tensor ${quote(name)} is ${dtype} [${shape.join(", ")}], ${MANIFEST_FILE} says ${listed.dtype} [${listed.shape.join(", ")}]`,
      );
  }
}

/** The first tensor of the manifest that an opened shard lacks, as an error; undefined when all are there. */
export function missingTensor(
  manifest: Manifest,
  shards: ReadonlyMap<string, SafetensorsFile>,
): CorruptFileError | undefined {
  for (const [name, { file }] of manifest.tensors) {
    const shard = shards.get(file);
    if (shard && !shard.tensors.has(name))
      return new CorruptFileError(
        `${shard.source.name}: has no tensor ${quote(name)}, but ${MANIFEST_FILE} lists it`,
      );
  }
  return undefined;
}

/** The adapter's tensors, found right. */
function adapterOf(folder: string, model: ModelConfig, manifest: Manifest, json: JsonObject): AdapterLayout {
  const config = parseAdapterConfig(json, `${folder}: ${ADAPTER_CONFIG}`);
  if (config.bits !== manifest.adapter?.bits)
    throw new CorruptFileError(
      `${folder}: ${ADAPTER_CONFIG} and ${MANIFEST_FILE} differ in the bits of the adapter`,
    );
  const own = [...manifest.tensors].filter(([, { file }]) => file === ADAPTER_WEIGHTS);
  return adapterLayout(config, new Map(own), model, `${folder}: ${ADAPTER_WEIGHTS}`);
}

/** Tensors that belong to no coded layer and to no adapter, in the order of the files. */
function plainTensors(manifest: Manifest): string[] {
  const coded = new Set<string>();
  for (const [layer, entry] of manifest.layers)
    for (const part of codedEntries(layer, entry)) for (const name of part.names) coded.add(name);
  const adapted = (name: string) => manifest.adapter && manifest.tensors.get(name)!.file === ADAPTER_WEIGHTS;
  return [...manifest.tensors.keys()].filter((name) => !coded.has(name) && !adapted(name));
}

/** generation_config.json may name more tokens that end a text, as for checkpoints. */
function modelConfig(folder: string, config: JsonObject, generation: JsonObject | null): ModelConfig {
  const parsed = parseModelConfig(config, `${folder}: config.json`);
  if (!generation) return parsed;
  const reader = new ConfigReader(generation, `${folder}: generation_config.json`);
  const ids = parseTokenIds(reader, "eos_token_id", generation, parsed.vocabularySize);
  return { ...parsed, eosTokenIds: [...new Set([...parsed.eosTokenIds, ...ids])] };
}

/** CorruptFileError unless the folder holds exactly the tensors of the model, coded or plain, in its shapes. */
function checkModel(folder: string, config: ModelConfig, manifest: Manifest, plain: Iterable<string>): void {
  const expected = expectedTensors(config);
  const wrong = (name: string, what: string) => new CorruptFileError(`${folder}: ${quote(name)} ${what}`);
  for (const [name, shape] of expected) {
    const layer = manifest.layers.get(name.replace(/\.weight$/, ""));
    const stored = layer ? [layer.rows, layer.columns] : manifest.tensors.get(name)?.shape;
    if (!stored) throw wrong(name, `is missing, the model has ${config.layers} layers with it`);
    if (!sameShape(stored, shape))
      throw wrong(
        name,
        `has the shape [${stored.join(", ")}] where the configuration asks for [${shape.join(", ")}]`,
      );
  }
  for (const layer of manifest.layers.keys())
    if (!expected.has(`${layer}.weight`)) throw wrong(layer, "is coded but no layer of the model");
  for (const name of plain) {
    if (!expected.has(name)) throw wrong(name, "is stored but no tensor of the model");
    if (!/^B?F(16|32)$/.test(manifest.tensors.get(name)!.dtype)) throw wrong(name, "is not stored as floats");
  }
}

async function readJson(file: ByteSource, listed: FileEntry, sha256: Sha256): Promise<JsonObject> {
  if (file.size > MAX_JSON_BYTES)
    throw new CorruptFileError(
      `${file.name}: has ${file.size} bytes, more than the limit of ${MAX_JSON_BYTES}`,
    );
  const bytes = await file.read(0, file.size);
  if ((await sha256(bytes)) !== listed.sha256)
    throw new CorruptFileError(
      `${file.name}: does not match its SHA-256: it is damaged or was changed; copy the folder again`,
    );
  return parseJsonObject(bytes, file.name);
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((n, i) => n === b[i]);
}

export function elements(shape: readonly number[]): number {
  return shape.reduce((product, n) => product * n, 1);
}
