// One token of each of several sequences: its key and value are stored in the sequence's own cache, which its query
// then attends to. A thread's share is whole key heads.

import { attention } from "./attention";
import { packedRowBytes, packRow } from "./kv-cache";
import { f32Bytes } from "./vector";

/** Written by src/compute/wasm/attend-each.ts. */
// @ts-ignore: decorator
@unmanaged
class Sequence {
  keys: usize = 0;
  values: usize = 0;
  position: i32 = 0;
  /** 0: f32; others are kv-cache.ts's. */
  format: i32 = 0;
  capacity: i32 = 0;
}

/**
 * Row i of query, key, value and y is of sequence i of `count`. Key heads first, first + step, … of all sequences one
 * after another. `scratch` as for `attention`, always with room to unpack.
 */
export function attendEach(
  sequences: usize,
  count: i32,
  query: usize,
  key: usize,
  value: usize,
  y: usize,
  heads: i32,
  kvHeads: i32,
  headSize: i32,
  factor: f32,
  window: i32,
  rowsPerTask: i32,
  scratch: usize,
  first: i32,
  step: i32,
): void {
  const tasksPerHead = (heads / kvHeads + rowsPerTask - 1) / rowsPerTask;
  const size = f32Bytes(headSize);
  for (let at = first; at < count * kvHeads; at += step) {
    const i = at / kvHeads;
    const kv = at % kvHeads;
    const sequence = changetype<Sequence>(sequences + <usize>i * offsetof<Sequence>());
    const keys = sequence.keys;
    const values = sequence.values;
    const position = sequence.position;
    const format = sequence.format;
    const capacity = sequence.capacity;
    const row = <usize>at * size;
    const to = format == 0 ? position * kvHeads + kv : kv * capacity + position;
    storeRow(key + row, keys, format, headSize, to);
    storeRow(value + row, values, format, headSize, to);
    const queries = <usize>(i * heads) * size;
    for (let task = kv * tasksPerHead; task < (kv + 1) * tasksPerHead; task++)
      attention(
        query + queries,
        keys,
        values,
        y + queries,
        1,
        position,
        heads,
        kvHeads,
        headSize,
        factor,
        window,
        format,
        capacity,
        rowsPerTask,
        scratch,
        task,
        kvHeads * tasksPerHead,
        false,
      );
  }
}

/** cache[row] = x, one head of one token. */
function storeRow(x: usize, cache: usize, format: i32, headSize: i32, row: i32): void {
  if (format == 0) memory.copy(cache + <usize>row * f32Bytes(headSize), x, f32Bytes(headSize));
  else packRow(x, cache + <usize>row * packedRowBytes(format, headSize), format, headSize);
}
