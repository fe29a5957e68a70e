// Second pass of attention's gradient: that of keys and values, for a block of keys over all rows that see it.
// Probabilities are found again from the first pass's statistics: dv = Σ p dy, dk = Σ ds factor q.

import { exp4 } from "../exp";
import { rowOf } from "../heads";
import { multiplyAccumulate } from "../outer";
import { f32Bytes, zero } from "../vector";
import { copyScaled, copyToColumn, ROWS, taskOf } from "./attention-rows";

/** Keys of a task. Its eight working blocks take 56 KiB with heads of 64, of which a product reads 20. */
const KEYS: i32 = 32;
/** Bytes of one row's scores. */
const LINE: usize = KEYS << 2;

/**
 * Tasks of thread `first` of `step`; a task is 32 keys of one key head. `statistics` as the pass over queries
 * left them. `scratch`: this thread's own, 64 * (3 headSize + 32) f32. `window` in tokens.
 */
export function attentionBackwardKeys(
  query: usize,
  keys: usize,
  values: usize,
  dy: usize,
  dKeys: usize,
  dValues: usize,
  statistics: usize,
  tokens: i32,
  heads: i32,
  kvHeads: i32,
  headSize: i32,
  factor: f32,
  window: i32,
  scratch: usize,
  first: i32,
  step: i32,
  wide: bool,
): void {
  const group = heads / kvHeads;
  const rows = tokens * group;
  const tasksPerHead = (tokens + KEYS - 1) / KEYS;
  const size = f32Bytes(headSize);
  const kvStride = <usize>kvHeads * size;
  const statisticsStride = f32Bytes(kvHeads * rows);
  const k = scratch; // [headSize, KEYS]
  const v = k + <usize>KEYS * size;
  const dk = v + <usize>KEYS * size; // [KEYS, headSize]
  const dv = dk + <usize>KEYS * size;
  const q = dv + <usize>KEYS * size; // [ROWS, headSize]
  const g = q + <usize>ROWS * size; // dy, likewise
  const p = g + <usize>ROWS * size; // [ROWS, KEYS]
  const ds = p + <usize>ROWS * LINE;

  for (let round = 0; ; round++) {
    const task = taskOf(round, first, step);
    if (round * step >= tasksPerHead * kvHeads) break;
    if (task >= tasksPerHead * kvHeads) continue;
    const kv = task / tasksPerHead;
    const key0 = (task % tasksPerHead) * KEYS;
    const length = min(KEYS, tokens - key0);
    const offset = <usize>kv * size + <usize>key0 * kvStride;
    if (length < KEYS) zero(k, 2 * KEYS * headSize);
    for (let i = 0; i < length; i++) {
      const from = offset + <usize>i * kvStride;
      copyToColumn(k + f32Bytes(i), LINE, keys + from, headSize, 1);
      copyToColumn(v + f32Bytes(i), LINE, values + from, headSize, 1);
    }
    zero(dk, 2 * KEYS * headSize);

    // The last key of the block is seen by the tokens up to window - 1 after it.
    const endToken = key0 + length + min(window - 1, tokens - key0 - length);
    for (let row0 = key0 * group; row0 < endToken * group; row0 += ROWS) {
      const count = min(ROWS, endToken * group - row0);
      for (let r = 0; r < count; r++) {
        const to = <usize>r * size;
        copyScaled(q + to, rowOf(query, row0 + r, group, heads, kv, size), headSize, factor);
        copyScaled(g + to, rowOf(dy, row0 + r, group, heads, kv, size), headSize, 1);
      }
      zero(p, 2 * ROWS * KEYS);
      multiplyAccumulate(q, size, 4, k, LINE, p, LINE, count, KEYS, headSize, wide);
      multiplyAccumulate(g, size, 4, v, LINE, ds, LINE, count, KEYS, headSize, wide);
      for (let r = 0; r < count; r++) {
        const at = statistics + f32Bytes(kv * rows + row0 + r);
        const last = (row0 + r) / group;
        weigh(
          p + <usize>r * LINE,
          ds + <usize>r * LINE,
          load<f32>(at),
          load<f32>(at + statisticsStride),
          load<f32>(at + 2 * statisticsStride),
          max(0, last - window + 1 - key0),
          min(length, last + 1 - key0),
        );
      }
      multiplyAccumulate(p, 4, LINE, g, size, dv, size, KEYS, headSize, count, wide);
      multiplyAccumulate(ds, 4, LINE, q, size, dk, size, KEYS, headSize, count, wide);
    }
    for (let i = 0; i < length; i++) {
      const to = offset + <usize>i * kvStride;
      copyScaled(dKeys + to, dk + <usize>i * size, headSize, 1);
      copyScaled(dValues + to, dv + <usize>i * size, headSize, 1);
    }
  }
}

/** A row's scores -> probabilities, and dy.v -> ds; those of keys outside from .. to - 1 are 0. */
function weigh(p: usize, ds: usize, maximum: f32, inverse: f32, mean: f32, from: i32, to: i32): void {
  const maxima = f32x4.splat(maximum);
  const inverses = f32x4.splat(inverse);
  const means = f32x4.splat(mean);
  for (let c: usize = 0; c < LINE; c += 16) {
    const weight = f32x4.mul(exp4(f32x4.sub(v128.load(p + c), maxima)), inverses);
    v128.store(p + c, weight);
    v128.store(ds + c, f32x4.mul(weight, f32x4.sub(v128.load(ds + c), means)));
  }
  zero(p, from);
  zero(ds, from);
  zero(p + f32Bytes(to), KEYS - to);
  zero(ds + f32Bytes(to), KEYS - to);
}
