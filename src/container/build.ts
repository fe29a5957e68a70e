/** The last step of writing: from a journal of finished layers to the files of a PocketLLM folder (Node only). */
import { join } from "node:path";
import type { TokenizerFiles } from "../checkpoint/checkpoint.js";
import { tensorBytes } from "../checkpoint/safetensors.js";
import { type TensorToWrite, writeAtomically, writeSafetensors } from "../checkpoint/safetensors-write.js";
import { throwIfAborted } from "../errors.js";
import type { OnProgress } from "../progress.js";
import { sha256 } from "./disk.js";
import type { Entry, EntryTensor, Journal } from "./journal.js";
import { prettyJson } from "./json.js";
import {
  codedEntries,
  type FileEntry,
  FORMAT_VERSION,
  isFileName,
  type LayerEntry,
  MANIFEST_FILE,
  type Manifest,
  type Provenance,
  type TensorEntry,
  writeManifest,
} from "./manifest.js";

/** Hubs, mirrors and browsers' caches handle files of this size well, and a torn download costs little. */
const SHARD_BYTES = 256 * 2 ** 20;
/** More than a tensor's entry in a safetensors header takes beside its name: type, shape, offsets, punctuation. */
const HEADER_ENTRY_BYTES = 160;

export interface FinishOptions {
  /** The source's Hugging Face config.json; `quantization_config` is set here. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Parsed tokenizer files, or the files themselves by name to keep them byte for byte. */
  readonly tokenizerFiles: TokenizerFiles | ReadonlyMap<string, Uint8Array> | null;
  readonly generationConfig: Readonly<Record<string, unknown>> | null;
  readonly provenance: Provenance;
  /** Every layer and plain tensor that was put, in the order in which they are to lie in the files. */
  readonly order: readonly string[];
  /** Most bytes of a weight file; a larger tensor gets a file of its own. Default 256 MiB. */
  readonly shardBytes?: number;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/** Of every weight file: Hugging Face's loaders refuse a file without "format". */
export const WEIGHT_METADATA = { format: "pt" } as const;

interface PlacedTensor {
  readonly name: string;
  readonly entry: Entry;
  readonly tensor: EntryTensor;
}

/** Writes every file of the folder into `folder`, the manifest last. Returns the bytes of the weight files. */
export async function buildFolder(folder: string, journal: Journal, options: FinishOptions): Promise<number> {
  const { layers, tensors } = inOrder(journal, options.order);
  const shards = cutShards(tensors, options.shardBytes ?? SHARD_BYTES);
  const files = new Map<string, FileEntry>();
  const placed = new Map<string, TensorEntry>();
  const add = async (name: string, bytes: Uint8Array) => {
    if (!isFileName(name))
      throw new RangeError(`${JSON.stringify(name)} is not a file name of a PocketLLM folder`);
    files.set(name, await writeAtomically(join(folder, name), (write) => write(bytes)));
  };

  let weightBytes = 0;
  for (const [i, shard] of shards.entries()) {
    options.onProgress?.({ stage: "writing", done: i, total: shards.length });
    const file = shardName(i, shards.length);
    const path = join(folder, file);
    const list = shard.map((tensor) => toWrite(tensor, journal));
    const written = await writeSafetensors({
      path,
      tensors: list,
      metadata: WEIGHT_METADATA,
      signal: options.signal,
    });
    files.set(file, written);
    weightBytes += written.bytes;
    for (const { name, tensor } of shard) {
      const { dtype, shape, bytes, sha256 } = tensor;
      placed.set(name, { file, dtype, shape, bytes, sha256 });
    }
  }
  throwIfAborted(options.signal);
  if (shards.length > 1) await add("model.safetensors.index.json", prettyJson(shardIndex(placed)));
  await add("config.json", prettyJson(withQuantization(options.config)));
  for (const [name, bytes] of tokenizerBytes(options.tokenizerFiles)) await add(name, bytes);
  if (options.generationConfig) await add("generation_config.json", prettyJson(options.generationConfig));

  const manifest: Manifest = {
    version: FORMAT_VERSION,
    provenance: options.provenance,
    files,
    layers,
    tensors: placed,
  };
  const bytes = await writeManifest(manifest, sha256);
  await writeAtomically(join(folder, MANIFEST_FILE), (write) => write(bytes));
  return weightBytes;
}

/** Every stored tensor in the caller's order. RangeError unless the order names each entry exactly once. */
function inOrder(
  journal: Journal,
  order: readonly string[],
): { layers: Map<string, LayerEntry>; tensors: PlacedTensor[] } {
  const layers = new Map<string, LayerEntry>();
  const tensors: PlacedTensor[] = [];
  for (const name of order) {
    const coded = journal.get("coded", name);
    const entry = coded ?? journal.get("plain", name);
    if (!entry) throw new RangeError(`${name} was never put`);
    let names = [name];
    if (coded) {
      const layer = coded.description as unknown as LayerEntry;
      layers.set(name, layer);
      names = codedEntries(name, layer).flatMap((part) => part.names);
    }
    for (const [i, stored] of names.entries())
      tensors.push({ name: stored, entry, tensor: entry.tensors[i] });
  }
  const put = journal.list("coded").length + journal.list("plain").length;
  if (new Set(order).size !== order.length || put !== order.length)
    throw new RangeError(`the order names ${order.length} layers and tensors, ${put} were put`);
  return { layers, tensors };
}

/** Consecutive runs of tensors that make files of at most `limit` bytes, header included. */
function cutShards(tensors: readonly PlacedTensor[], limit: number): PlacedTensor[][] {
  const shards: PlacedTensor[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const placed of tensors) {
    const size =
      tensorBytes(placed.tensor.dtype, placed.tensor.shape) + placed.name.length + HEADER_ENTRY_BYTES;
    if (bytes + size > limit) {
      shards.push([]);
      bytes = HEADER_ENTRY_BYTES;
    }
    shards[shards.length - 1].push(placed);
    bytes += size;
  }
  return shards;
}

function shardName(index: number, count: number): string {
  const number = (n: number) => String(n).padStart(5, "0");
  return count === 1 ? "model.safetensors" : `model-${number(index + 1)}-of-${number(count)}.safetensors`;
}

function shardIndex(tensors: ReadonlyMap<string, TensorEntry>): Record<string, unknown> {
  let total = 0;
  for (const { bytes } of tensors.values()) total += bytes;
  const map = Object.fromEntries([...tensors].map(([name, { file }]) => [name, file]));
  return { metadata: { total_size: total }, weight_map: map };
}

function toWrite({ name, entry, tensor }: PlacedTensor, journal: Journal): TensorToWrite {
  return { name, dtype: tensor.dtype, shape: tensor.shape, data: () => journal.stream(entry, tensor) };
}

function withQuantization(config: FinishOptions["config"]): Record<string, unknown> {
  const quantization = { quant_method: "pocketllm", version: FORMAT_VERSION, manifest: MANIFEST_FILE };
  return { ...config, quantization_config: quantization };
}

function tokenizerBytes(files: FinishOptions["tokenizerFiles"]): Iterable<readonly [string, Uint8Array]> {
  if (files === null) return [];
  if (!("tokenizer" in files)) return files;
  return [
    ["tokenizer.json", prettyJson(files.tokenizer)],
    ["tokenizer_config.json", prettyJson(files.config)],
  ];
}
