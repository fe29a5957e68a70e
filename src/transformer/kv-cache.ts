/**
 * Keys and values of past tokens, layer by layer. Sessions keep them in 16 bits or fewer; training and
 * compressing, whose gradients read them, in f32.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer, ByteBuffer } from "../compute/backend.js";
import { type PackedFormat, packedRowBytes } from "../compute/kv-format.js";
import type { BufferGroup } from "./buffers.js";
import { rotaryFrequencies } from "./rope.js";

/**
 * How keys and values are stored. "f16" halves the memory of "f32", with a mean divergence of 3e-7 nats for SmolLM2-135M;
 * "int8" has a scale for each head of each token and takes a little over half of "f16", with 6e-4.
 */
export type CacheFormat = "f32" | PackedFormat;
export const CACHE_FORMATS: readonly CacheFormat[] = ["f32", "f16", "int8"];

/** Keys and values of one layer, [capacity, kvHeads * headSize] each. */
export interface LayerCache {
  readonly format: "f32";
  readonly keys: Buffer;
  readonly values: Buffer;
}

/** The same, packed: [kvHeads, capacity] rows (../compute/kv-format.ts). */
export interface PackedLayerCache {
  readonly format: PackedFormat;
  readonly keys: ByteBuffer;
  readonly values: ByteBuffer;
}

export type AnyLayerCache = LayerCache | PackedLayerCache;

type Shape = Pick<ModelConfig, "kvHeads" | "headSize">;

/** An empty f32 cache of `capacity` positions, its buffers in `group`. */
export function allocateCache(
  group: BufferGroup,
  { kvHeads, headSize }: Shape,
  capacity: number,
): LayerCache {
  const length = capacity * kvHeads * headSize;
  return { format: "f32", keys: group.allocate(length), values: group.allocate(length) };
}

/** An empty cache of `capacity` positions in `format`, its buffers in `group`. */
export function allocateCacheIn(
  format: CacheFormat,
  group: BufferGroup,
  config: Shape,
  capacity: number,
): AnyLayerCache {
  if (format === "f32") return allocateCache(group, config, capacity);
  const bytes = capacity * config.kvHeads * packedRowBytes(format, config.headSize);
  return { format, keys: group.allocateBytes(bytes), values: group.allocateBytes(bytes) };
}

/** Tokens' keys and values in f32, [tokens, kvHeads * headSize] each. */
interface KeysAndValues {
  readonly key: Buffer;
  readonly value: Buffer;
}

/** cache[position ..] = key, value of `tokens` tokens, from row `from` on. */
export function storeInCache(
  backend: Backend,
  { kvHeads, headSize }: Shape,
  cache: AnyLayerCache,
  { key, value }: KeysAndValues,
  position: number,
  tokens: number,
  from = 0,
): void {
  if (cache.format === "f32") {
    const columns = kvHeads * headSize;
    backend.copy(key, from * columns, cache.keys, position * columns, tokens * columns);
    backend.copy(value, from * columns, cache.values, position * columns, tokens * columns);
    return;
  }
  const rows = { format: cache.format, from, tokens, position, kvHeads, headSize };
  backend.packRows({ ...rows, x: key, cache: cache.keys });
  backend.packRows({ ...rows, x: value, cache: cache.values });
}

/** key, value = cache[position ..] */
function loadFromCache(
  backend: Backend,
  { kvHeads, headSize }: Shape,
  cache: AnyLayerCache,
  { key, value }: KeysAndValues,
  position: number,
  tokens: number,
): void {
  if (cache.format === "f32") {
    const columns = kvHeads * headSize;
    backend.copy(cache.keys, position * columns, key, 0, tokens * columns);
    backend.copy(cache.values, position * columns, value, 0, tokens * columns);
    return;
  }
  const rows = { format: cache.format, tokens, position, kvHeads, headSize };
  backend.unpackRows({ ...rows, x: key, cache: cache.keys });
  backend.unpackRows({ ...rows, x: value, cache: cache.values });
}

export interface ShiftOptions {
  readonly backend: Backend;
  readonly config: ModelConfig;
  readonly caches: readonly AnyLayerCache[];
  /** Room for `chunk` tokens, overwritten. */
  readonly scratch: KeysAndValues;
  readonly chunk: number;
  /** Tokens from `from` on move `by` positions towards the start, over the ones there. */
  readonly from: number;
  readonly by: number;
  /** Tokens in the caches. */
  readonly length: number;
}

/**
 * Moves tokens towards the start of the caches. Their keys are turned back by as many positions: rotary
 * embedding makes attention depend on the difference of two positions alone, and a turn of a turned key is the
 * turn by the sum of both.
 */
export function shiftCaches(options: ShiftOptions): void {
  const { backend, config, caches, scratch, chunk, from, by, length } = options;
  const { kvHeads, headSize } = config;
  // One row of angles for each token of a chunk: they all turn by the same.
  const angles = rotaryFrequencies(config).map((frequency) => -by * frequency);
  const repeated = (turn: (angle: number) => number) => {
    const rows = new Float32Array(chunk * angles.length);
    for (let t = 0; t < chunk; t++) rows.set(angles.map(turn), t * angles.length);
    const buffer = backend.allocate(rows.length);
    backend.write(buffer, rows);
    return buffer;
  };
  const cosines = repeated(Math.cos);
  const sines = repeated(Math.sin);
  for (const cache of caches) {
    for (let position = from; position < length; position += chunk) {
      const tokens = Math.min(chunk, length - position);
      loadFromCache(backend, config, cache, scratch, position, tokens);
      backend.rope({ x: scratch.key, cosines, sines, tokens, position: 0, heads: kvHeads, headSize });
      storeInCache(backend, config, cache, scratch, position - by, tokens);
    }
  }
  backend.free(cosines);
  backend.free(sines);
}
