/**
 * A GGUF file as a checkpoint: llama.cpp's names, axis order and block formats undone, so that its tensors are
 * those that the Hugging Face model would give. Free of Node: the source may be a file, a Blob or HTTP ranges.
 */
import { InputError } from "../errors.js";
import { roundAllToF16 } from "../tensor/dtype.js";
import { parseModelConfig } from "./architectures.js";
import type { ByteSource } from "./byte-source.js";
import type { Checkpoint } from "./checkpoint.js";
import { DenseCheckpoint, elements, type Hasher } from "./dense-checkpoint.js";
import { BLOCK_FORMATS, decodeBlocks } from "./gguf-blocks.js";
import { ggufConfig, huggingFaceName } from "./gguf-config.js";
import { type GgufHeader, type GgufTensor, readGgufHeader } from "./gguf-header.js";
import { ggufTokenizer } from "./gguf-tokenizer.js";
import { quote } from "./json.js";
import { interleavedToHalves } from "./rotary-layout.js";
import { matchTensors } from "./tensors.js";

/** Bytes decoded at a time. */
const CHUNK_BYTES = 2 ** 20;
/** Rotary factors of Llama 3: read into the configuration, not a weight. */
const ROPE_FACTORS = "rope_freqs.weight";

export interface OpenGgufOptions {
  readonly source: ByteSource;
  readonly hash: Hasher;
  readonly close: () => Promise<void>;
}

/** Throws InputError, one line, on anything that cannot be used. The source stays open until `close`. */
export async function openGguf(options: OpenGgufOptions): Promise<Checkpoint> {
  const { source, hash, close } = options;
  const file = source.name;
  const header = await readGgufHeader(source);
  const factors = header.tensors.get(ROPE_FACTORS);
  if (factors && elements(factors.shape) > 4096)
    throw new InputError(`${file}: tensor ${quote(ROPE_FACTORS)} has ${elements(factors.shape)} values`);
  const huggingFaceConfig = ggufConfig(header, file, factors ? await readTensor(source, factors) : null);
  const config = parseModelConfig(huggingFaceConfig, file);
  const { stored, originals } = renameTensors(header, file);
  const tensors = matchTensors(config, stored, file);
  const interleaved = header.metadata.get("general.architecture") === "llama";
  return new DenseCheckpoint({
    source: file,
    format: "gguf",
    config,
    huggingFaceConfig,
    generationConfig: null,
    tensors,
    load: async (name) => {
      const { storedName, shape } = tensors.get(name)!;
      const values = await readTensor(source, originals.get(storedName)!);
      if (interleaved && /\.(q|k)_proj\.(weight|bias)$/.test(name))
        interleavedToHalves(values, config.headSize, shape.length === 2 ? shape[1] : 1);
      return values;
    },
    tokenizer: async () => ggufTokenizer(header.metadata, file),
    hash,
    close,
  });
}

function renameTensors(header: GgufHeader, file: string) {
  const stored = new Map<string, { shape: readonly number[]; storedAs: string }>();
  const originals = new Map<string, GgufTensor>();
  for (const tensor of header.tensors.values()) {
    if (tensor.name === ROPE_FACTORS) continue;
    const name = huggingFaceName(tensor.name);
    if (stored.has(name))
      throw new InputError(`${file}: tensors ${quote(tensor.name)} and ${quote(name)} are the same matrix`);
    // Trailing dimensions of 1 (in GGUF's order) mean nothing.
    const shape = [...tensor.shape];
    while (shape.length > 1 && shape[0] === 1) shape.shift();
    stored.set(name, { shape, storedAs: tensor.type });
    originals.set(name, tensor);
  }
  return { stored, originals };
}

/**
 * One tensor as f32 in the file's row order; holds the result and 1 MiB. Quantised blocks become the 16-bit
 * floats nearest to what they stand for: sizes and divergences are told against the 16-bit model, so that is
 * the model that is read (and what a conversion to F16 by other tools holds).
 */
async function readTensor(source: ByteSource, tensor: GgufTensor): Promise<Float32Array> {
  const format = BLOCK_FORMATS.get(tensor.type)!;
  const values = new Float32Array(elements(tensor.shape));
  const chunk = Math.floor(CHUNK_BYTES / format.bytes) * format.bytes;
  for (let at = 0; at < tensor.byteLength; at += chunk) {
    const bytes = await source.read(tensor.offset + at, Math.min(chunk, tensor.byteLength - at));
    decodeBlocks(bytes, tensor.type, values.subarray((at / format.bytes) * format.weights));
  }
  if (format.weights > 1) roundAllToF16(values);
  return values;
}
