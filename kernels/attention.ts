// Causal grouped-query attention over a cache, by blocks of keys with a running maximum and sum (FlashAttention,
// arXiv 2205.14135), so that memory does not grow with the context. The query heads that share a key head are
// rows of one problem: row r is token r / group, head r % group of the group. Blocks of keys start at
// multiples of KEYS, so a row's result does not depend on which rows it is computed with.

import { addPacked, LARGEST_QUERY, scorePacked } from "./attention-direct";
import { multiplyTransposed } from "./gemm";
import { rowOf } from "./heads";
import { F16, HALF_SCALE, packedRowBytes, unpackRows } from "./kv-cache";
import { multiplyAccumulate } from "./outer";
import { exp1, expShifted, maximum, scale } from "./softmax";
import { f32Bytes, maxLanes, zero } from "./vector";

/** Keys per block: 64 keys of 64 elements are 16 KiB, half of L1. */
const KEYS: i32 = 64;

/**
 * Tasks first, first + step, …; a task is `rowsPerTask` rows of one key head, tasks of a head adjacent.
 * `format` 0: keys and values are f32 [positions, kvHeads, headSize]; others are kv-cache.ts's, [kvHeads, capacity] rows,
 * unpacked by blocks or as they are used. `scratch`: this thread's own, rowsPerTask * (2 headSize + 64 + 2) f32, and
 * 64 headSize more to unpack to. `window` in tokens.
 */
export function attention(
  query: usize,
  keys: usize,
  values: usize,
  y: usize,
  tokens: i32,
  position: i32,
  heads: i32,
  kvHeads: i32,
  headSize: i32,
  factor: f32,
  window: i32,
  format: i32,
  capacity: i32,
  rowsPerTask: i32,
  scratch: usize,
  first: i32,
  step: i32,
  wide: bool,
): void {
  const group = heads / kvHeads;
  const rows = tokens * group;
  const tasksPerHead = (rows + rowsPerTask - 1) / rowsPerTask;
  const size = f32Bytes(headSize);
  const kvSize = format == 0 ? size : packedRowBytes(format, headSize);
  const kvStride = format == 0 ? <usize>kvHeads * kvSize : kvSize;
  const headStride = format == 0 ? kvSize : <usize>capacity * kvSize;
  const q = scratch;
  const out = q + <usize>rowsPerTask * size;
  const scores = out + <usize>rowsPerTask * size;
  const maxima = scores + <usize>rowsPerTask * f32Bytes(KEYS);
  const sums = maxima + f32Bytes(rowsPerTask);
  const unpacked = sums + f32Bytes(rowsPerTask);
  const blockStride = format == 0 ? kvStride : size;

  for (let task = first; task < tasksPerHead * kvHeads; task += step) {
    const kv = task / tasksPerHead;
    const row0 = (task % tasksPerHead) * rowsPerTask;
    const count = min(rowsPerTask, rows - row0);
    const headKeys = keys + <usize>kv * headStride;
    const headValues = values + <usize>kv * headStride;
    for (let r = 0; r < count; r++) {
      const to = q + <usize>r * size;
      memory.copy(to, rowOf(query, row0 + r, group, heads, kv, size), size);
      scale(to, headSize, factor);
      store<f32>(maxima + f32Bytes(r), -Infinity);
      store<f32>(sums + f32Bytes(r), 0);
    }
    zero(out, count * headSize);

    const firstKey = max(0, position + row0 / group - window + 1);
    const halves = format == F16;
    const direct =
      format != 0 &&
      count <= 4 &&
      (headSize & 7) == 0 &&
      (!halves || largestOf(q, count * headSize) < LARGEST_QUERY);
    if (direct && halves) scale(q, count * headSize, HALF_SCALE);
    const endKey = position + (row0 + count - 1) / group + 1;
    for (let key = firstKey & ~(KEYS - 1); key < endKey; key += KEYS) {
      const length = min(KEYS, endKey - key);
      let block = headKeys + <usize>key * kvStride;
      if (direct) scorePacked(format, q, block, kvStride, scores, f32Bytes(KEYS), count, headSize, length);
      else {
        if (format != 0) {
          unpackRows(block, kvStride, unpacked, format, headSize, length);
          block = unpacked;
        }
        multiplyTransposed(q, size, block, blockStride, scores, f32Bytes(KEYS), count, headSize, length, false);
      }
      for (let r = 0; r < count; r++) {
        const last = position + (row0 + r) / group;
        weigh(
          scores + <usize>r * f32Bytes(KEYS),
          length,
          max(0, last - window + 1 - key),
          min(length, last + 1 - key),
          maxima + f32Bytes(r),
          sums + f32Bytes(r),
          out + <usize>r * size,
          headSize,
        );
      }
      block = headValues + <usize>key * kvStride;
      if (direct) {
        if (halves)
          for (let r = 0; r < count; r++) scale(scores + <usize>r * f32Bytes(KEYS), length, HALF_SCALE);
        addPacked(format, scores, f32Bytes(KEYS), block, kvStride, out, count, headSize, length);
      } else {
        if (format != 0) {
          unpackRows(block, kvStride, unpacked, format, headSize, length);
          block = unpacked;
        }
        multiplyAccumulate(scores, f32Bytes(KEYS), 4, block, blockStride, out, size, count, headSize, length, wide);
      }
    }
    for (let r = 0; r < count; r++) {
      const from = out + <usize>r * size;
      scale(from, headSize, <f32>1 / load<f32>(sums + f32Bytes(r)));
      memory.copy(rowOf(y, row0 + r, group, heads, kv, size), from, size);
    }
  }
}

/** The largest magnitude of `count` values, a multiple of 8; NaN stays out. */
function largestOf(x: usize, count: i32): f32 {
  let largest = f32x4.splat(0);
  for (const end = x + f32Bytes(count); x < end; x += 16)
    largest = f32x4.pmax(largest, f32x4.abs(v128.load(x)));
  return maxLanes(largest);
}

/** A row of a block's scores -> weights relative to the row's maximum so far; those outside from .. to are 0. */
function weigh(
  scores: usize,
  length: i32,
  from: i32,
  to: i32,
  maximumAt: usize,
  sumAt: usize,
  out: usize,
  headSize: i32,
): void {
  if (from >= to) {
    zero(scores, length);
    return;
  }
  const valid = scores + f32Bytes(from);
  const before = load<f32>(maximumAt);
  const now = max(before, maximum(valid, to - from));
  const sum = expShifted(valid, to - from, now);
  zero(scores, from);
  zero(scores + f32Bytes(to), length - to);
  if (now > before) {
    const fade = exp1(before - now);
    scale(out, headSize, fade);
    store<f32>(sumAt, load<f32>(sumAt) * fade + sum);
    store<f32>(maximumAt, now);
  } else store<f32>(sumAt, load<f32>(sumAt) + sum);
}
