// First pass of attention's gradient: that of the queries, and for each row what the second pass needs to find
// its probabilities again. With s = factor q.k, p = exp(s - maximum) / sum, m = dy.y:
// ds = p (dy.v - m), dq = factor Σ ds k.
//
// A block of rows holds its scores for all of its keys (rows x tokens, never tokens²), keys along the rows of
// memory and query rows along the lanes, so that nothing is summed across lanes.

import { exp4 } from "../exp";
import { rowOf } from "../heads";
import { multiplyAccumulate } from "../outer";
import { f32Bytes, zero } from "../vector";
import { copyScaled, copyToColumn, dotRow, ROWS, taskOf } from "./attention-rows";

/** Keys whose dy.v are held at once: with 32 rows 8 KiB. */
const KEYS: i32 = 64;
/** Bytes of one key's scores. */
const LINE: usize = ROWS << 2;

/**
 * Tasks of thread `first` of `step`; a task is 32 rows of one key head. `statistics` [3][kvHeads][rows of a key
 * head]: each row's maximum, 1 / sum and m. `scratch`: this thread's own, 32 * (3 headSize + 64 + 3 + keys)
 * f32, where keys = min(tokens, window + 32). `window` in tokens.
 */
export function attentionBackwardQueries(
  query: usize,
  keys: usize,
  values: usize,
  y: usize,
  dy: usize,
  dQuery: usize,
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
  const tasksPerHead = (rows + ROWS - 1) / ROWS;
  const size = f32Bytes(headSize);
  const kvStride = <usize>kvHeads * size;
  const statisticsStride = f32Bytes(kvHeads * rows);
  const q = scratch; // [headSize, ROWS]
  const g = q + <usize>ROWS * size; // dy, [headSize, ROWS]
  const dq = g + <usize>ROWS * size; // [ROWS, headSize]
  const ds = dq + <usize>ROWS * size; // [KEYS, ROWS]
  const maxima = ds + <usize>KEYS * LINE;
  const sums = maxima + LINE;
  const means = sums + LINE;
  const scores = means + LINE; // [keys, ROWS]

  for (let round = 0; ; round++) {
    const task = taskOf(round, first, step);
    if (round * step >= tasksPerHead * kvHeads) break;
    if (task >= tasksPerHead * kvHeads) continue;
    const kv = task / tasksPerHead;
    const row0 = (task % tasksPerHead) * ROWS;
    const count = min(ROWS, rows - row0);
    if (count < ROWS) zero(q, 2 * ROWS * headSize);
    zero(means, ROWS);
    for (let r = 0; r < count; r++) {
      const dyRow = rowOf(dy, row0 + r, group, heads, kv, size);
      copyToColumn(q + f32Bytes(r), LINE, rowOf(query, row0 + r, group, heads, kv, size), headSize, factor);
      copyToColumn(g + f32Bytes(r), LINE, dyRow, headSize, 1);
      store<f32>(means + f32Bytes(r), dotRow(dyRow, rowOf(y, row0 + r, group, heads, kv, size), headSize));
    }

    const firstToken = row0 / group;
    const lastToken = (row0 + count - 1) / group;
    const firstKey = max(0, firstToken - window + 1);
    const length = lastToken + 1 - firstKey;
    const headKeys = keys + <usize>kv * size + <usize>firstKey * kvStride;
    const headValues = values + <usize>kv * size + <usize>firstKey * kvStride;
    zero(scores, length * ROWS);
    multiplyAccumulate(headKeys, kvStride, 4, q, LINE, scores, LINE, length, ROWS, headSize, wide);
    for (let r = 0; r < ROWS; r++) {
      const last = (row0 + min(r, count - 1)) / group;
      hide(scores + f32Bytes(r), 0, last - window + 1 - firstKey);
      hide(scores + f32Bytes(r), last + 1 - firstKey, length);
    }
    findMaxima(scores, length, maxima);
    exponentials(scores, length, maxima, sums);

    zero(dq, ROWS * headSize);
    for (let key = 0; key < length; key += KEYS) {
      const block = min(KEYS, length - key);
      const down = <usize>key * kvStride;
      zero(ds, block * ROWS);
      multiplyAccumulate(headValues + down, kvStride, 4, g, LINE, ds, LINE, block, ROWS, headSize, wide);
      centre(ds, scores + <usize>key * LINE, means, block);
      multiplyAccumulate(ds, 4, LINE, headKeys + down, kvStride, dq, size, count, headSize, block, wide);
    }
    for (let r = 0; r < count; r++) {
      const inverse = <f32>1 / load<f32>(sums + f32Bytes(r));
      const to = rowOf(dQuery, row0 + r, group, heads, kv, size);
      copyScaled(to, dq + <usize>r * size, headSize, inverse * factor);
      const at = statistics + f32Bytes(kv * rows + row0 + r);
      store<f32>(at, load<f32>(maxima + f32Bytes(r)));
      store<f32>(at + statisticsStride, inverse);
      store<f32>(at + 2 * statisticsStride, load<f32>(means + f32Bytes(r)));
    }
  }
}

/** Scores of keys from .. to - 1 in one column become -Infinity: their exponential is 0. */
function hide(column: usize, from: i32, to: i32): void {
  for (let key = from; key < to; key++) store<f32>(column + <usize>key * LINE, -Infinity);
}

/** The largest score of each column. */
function findMaxima(scores: usize, length: i32, maxima: usize): void {
  const end = scores + <usize>length * LINE;
  for (let c: usize = 0; c < LINE; c += 64) {
    let m0 = f32x4.splat(-Infinity);
    let m1 = m0,
      m2 = m0,
      m3 = m0;
    for (let p = scores + c; p < end; p += LINE) {
      m0 = f32x4.pmax(m0, v128.load(p));
      m1 = f32x4.pmax(m1, v128.load(p, 16));
      m2 = f32x4.pmax(m2, v128.load(p, 32));
      m3 = f32x4.pmax(m3, v128.load(p, 48));
    }
    v128.store(maxima + c, m0);
    v128.store(maxima + c, m1, 16);
    v128.store(maxima + c, m2, 32);
    v128.store(maxima + c, m3, 48);
  }
}

/** scores = exp(scores - maxima), column by column; `sums` of each column. */
function exponentials(scores: usize, length: i32, maxima: usize, sums: usize): void {
  const end = scores + <usize>length * LINE;
  zero(sums, ROWS);
  for (let p = scores; p < end; p += LINE) {
    for (let c: usize = 0; c < LINE; c += 16) {
      const e = exp4(f32x4.sub(v128.load(p + c), v128.load(maxima + c)));
      v128.store(p + c, e);
      v128.store(sums + c, f32x4.add(v128.load(sums + c), e));
    }
  }
}

/** ds = weights * (ds - means) */
function centre(ds: usize, weights: usize, means: usize, length: i32): void {
  const end = ds + <usize>length * LINE;
  for (; ds < end; ds += LINE, weights += LINE) {
    for (let c: usize = 0; c < LINE; c += 16) {
      const difference = f32x4.sub(v128.load(ds + c), v128.load(means + c));
      v128.store(ds + c, f32x4.mul(v128.load(weights + c), difference));
    }
  }
}
