/**
 * Viterbi search of the trellis codec: for each sequence of targets the codes whose windows give the least
 * weighted squared error. Costs are unsigned 16-bit integers with saturating addition, so that a result is
 * the same on every machine and 8 states share a vector.
 *
 * One step is a min-plus product. A state is the last codes of a window but the oldest; a window's byte is
 * u = S0[n] ^ S1[..] ^ ... ^ SK[oldest]. S0 and SK are independent, so the 256 distances of a step can be
 * laid out as [e][a][b] = distance(S0[b] ^ SK[a] ^ R[e]) (R spans the rest, e = 0 for 4-bit codes), and the
 * states so that next[j][b] = min over a of cost[source[j][a]] + distance[e(j)][a][b]: the schedule
 * (src/codec/trellis/schedule.ts) holds `source` and what code a position stands for.
 *
 * Survivors are not stored: the traceback repeats the minimum of the one state it passes, from the stored
 * costs and distances of all steps (1 KB a step for 4-bit codes, 1.5 KB for 3-bit).
 */
import { Search } from "./search";

/** 8388608.0: adding it to a float of less than 2^23 leaves the rounded integer in the low bits. */
const MAGIC = memory.data<u32>([0x4b000000, 0x4b000000, 0x4b000000, 0x4b000000], 16);
const ONES = memory.data<u64>([~0, ~0], 16);
const INFINITE: u32 = 0xffff;
/** Costs are lowered by their minimum when it passes this. */
const RENORMALISE_ABOVE: u32 = 8192;
/**
 * A long sequence is searched in pieces, each with this many more steps of look-ahead: codes depend on later
 * rows through 2 or 3 codes of state, so that 64 rows on the choice is settled. Bounds the memory too.
 */
const PIECE = 2048;
const DELAY = 64;
/** A search whose costs all saturate is repeated with an 8 times coarser scale, at most this often. */
const MAXIMUM_RETRIES = 12;

// @ts-ignore: decorator
@inline
function levels(width: i32, c: usize, x0: v128, x1: v128, x2: v128, x3: v128, w: v128, magic: v128): v128 {
  let d = f32x4.sub(x0, v128.load(c));
  let s = f32x4.mul(d, d);
  if (width > 1) {
    d = f32x4.sub(x1, v128.load(c, 1024));
    s = f32x4.add(s, f32x4.mul(d, d));
  }
  if (width > 2) {
    d = f32x4.sub(x2, v128.load(c, 2048));
    s = f32x4.add(s, f32x4.mul(d, d));
  }
  if (width > 3) {
    d = f32x4.sub(x3, v128.load(c, 3072));
    s = f32x4.add(s, f32x4.mul(d, d));
  }
  return i32x4.sub(f32x4.add(f32x4.mul(s, w), magic), magic);
}

/** Distances of one row's target to all 256 codewords, saturated to 16 bits (not-a-number too). */
// @ts-ignore: decorator
@inline
function distancesOf(width: i32, target: usize, plane: usize, weight: f32, codewords: usize, out: usize): void {
  const magic = v128.load(MAGIC);
  const w = f32x4.splat(weight);
  const x0 = v128.load32_splat(target);
  const x1 = width > 1 ? v128.load32_splat(target + plane) : x0;
  const x2 = width > 2 ? v128.load32_splat(target + 2 * plane) : x0;
  const x3 = width > 3 ? v128.load32_splat(target + 3 * plane) : x0;
  for (let i: usize = 0; i < 1024; i += 32) {
    const low = levels(width, codewords + i, x0, x1, x2, x3, w, magic);
    const high = levels(width, codewords + i + 16, x0, x1, x2, x3, w, magic);
    v128.store(out + (i >> 1), i16x8.narrow_i32x4_u(low, high));
  }
}

/** 4-bit codes: 16 rows j of 16 states, four rows at a time in 8 accumulators. Returns lane minima. */
// @ts-ignore: decorator
@inline
function step4(cost: usize, next: usize, schedule: usize, distance: usize): v128 {
  const ones = v128.load(ONES);
  let low = ones;
  for (let block: usize = 0; block < 512; block += 128) {
    let source = schedule + block;
    let a0 = ones, a1 = ones, b0 = ones, b1 = ones, c0 = ones, c1 = ones, d0 = ones, d1 = ones;
    for (let d = distance, end = distance + 512; d < end; d += 32) {
      const l = v128.load(d);
      const h = v128.load(d, 16);
      const a = v128.load16_splat(cost + load<u16>(source));
      const b = v128.load16_splat(cost + load<u16>(source, 32));
      const c = v128.load16_splat(cost + load<u16>(source, 64));
      const e = v128.load16_splat(cost + load<u16>(source, 96));
      a0 = i16x8.min_u(a0, i16x8.add_sat_u(a, l));
      a1 = i16x8.min_u(a1, i16x8.add_sat_u(a, h));
      b0 = i16x8.min_u(b0, i16x8.add_sat_u(b, l));
      b1 = i16x8.min_u(b1, i16x8.add_sat_u(b, h));
      c0 = i16x8.min_u(c0, i16x8.add_sat_u(c, l));
      c1 = i16x8.min_u(c1, i16x8.add_sat_u(c, h));
      d0 = i16x8.min_u(d0, i16x8.add_sat_u(e, l));
      d1 = i16x8.min_u(d1, i16x8.add_sat_u(e, h));
      source += 2;
    }
    const out = next + block;
    v128.store(out, a0);
    v128.store(out, a1, 16);
    v128.store(out, b0, 32);
    v128.store(out, b1, 48);
    v128.store(out, c0, 64);
    v128.store(out, c1, 80);
    v128.store(out, d0, 96);
    v128.store(out, d1, 112);
    const ab = i16x8.min_u(i16x8.min_u(a0, a1), i16x8.min_u(b0, b1));
    const cd = i16x8.min_u(i16x8.min_u(c0, c1), i16x8.min_u(d0, d1));
    low = i16x8.min_u(low, i16x8.min_u(ab, cd));
  }
  return low;
}

/** 3-bit codes: 64 rows j of 8 states, ordered by e, eight rows at a time. Returns lane minima. */
// @ts-ignore: decorator
@inline
function step3(cost: usize, next: usize, schedule: usize, distance: usize): v128 {
  const ones = v128.load(ONES);
  let low = ones;
  for (let block: usize = 0; block < 1024; block += 128) {
    let source = schedule + block;
    const first = distance + ((block >> 8) << 7);
    let a0 = ones, a1 = ones, a2 = ones, a3 = ones, a4 = ones, a5 = ones, a6 = ones, a7 = ones;
    for (let d = first, end = first + 128; d < end; d += 16) {
      const x = v128.load(d);
      a0 = i16x8.min_u(a0, i16x8.add_sat_u(v128.load16_splat(cost + load<u16>(source)), x));
      a1 = i16x8.min_u(a1, i16x8.add_sat_u(v128.load16_splat(cost + load<u16>(source, 16)), x));
      a2 = i16x8.min_u(a2, i16x8.add_sat_u(v128.load16_splat(cost + load<u16>(source, 32)), x));
      a3 = i16x8.min_u(a3, i16x8.add_sat_u(v128.load16_splat(cost + load<u16>(source, 48)), x));
      a4 = i16x8.min_u(a4, i16x8.add_sat_u(v128.load16_splat(cost + load<u16>(source, 64)), x));
      a5 = i16x8.min_u(a5, i16x8.add_sat_u(v128.load16_splat(cost + load<u16>(source, 80)), x));
      a6 = i16x8.min_u(a6, i16x8.add_sat_u(v128.load16_splat(cost + load<u16>(source, 96)), x));
      a7 = i16x8.min_u(a7, i16x8.add_sat_u(v128.load16_splat(cost + load<u16>(source, 112)), x));
      source += 2;
    }
    const out = next + block;
    v128.store(out, a0);
    v128.store(out, a1, 16);
    v128.store(out, a2, 32);
    v128.store(out, a3, 48);
    v128.store(out, a4, 64);
    v128.store(out, a5, 80);
    v128.store(out, a6, 96);
    v128.store(out, a7, 112);
    const l = i16x8.min_u(i16x8.min_u(a0, a1), i16x8.min_u(a2, a3));
    const h = i16x8.min_u(i16x8.min_u(a4, a5), i16x8.min_u(a6, a7));
    low = i16x8.min_u(low, i16x8.min_u(l, h));
  }
  return low;
}

// @ts-ignore: decorator
@inline
function smallestLane(x: v128): u32 {
  x = i16x8.min_u(x, v128.shuffle<u16>(x, x, 4, 5, 6, 7, 4, 5, 6, 7));
  x = i16x8.min_u(x, v128.shuffle<u16>(x, x, 2, 3, 2, 3, 2, 3, 2, 3));
  x = i16x8.min_u(x, v128.shuffle<u16>(x, x, 1, 1, 1, 1, 1, 1, 1, 1));
  return i16x8.extract_lane_u(x, 0);
}

/** Lowers all finite costs by `amount`; infinite ones stay. */
function lower(cost: usize, bytes: usize, amount: u32): void {
  const by = i16x8.splat(<i16>amount);
  const infinite = v128.load(ONES);
  for (let p = cost; p < cost + bytes; p += 16) {
    const x = v128.load(p);
    v128.store(p, v128.or(i16x8.sub(x, by), i16x8.eq(x, infinite)));
  }
}

/** Runs `steps` steps from `row`, from the costs at search.costs; false if every cost saturated. */
function forward(search: Search, row: i32, steps: i32, scale: f32): bool {
  const three = search.codeBits == 3;
  const bytes: usize = three ? 1024 : 512;
  const width = search.width;
  const plane = <usize>search.stride << 2;
  const codewords = search.codewords;
  const schedule = search.schedule;
  const rows = search.rows;
  const interleave = search.interleave;
  let cost = search.costs;
  let distance = search.distances;
  for (let k = 0; k < steps; k++) {
    const target = search.targets + (<usize>row << 2);
    const weight = load<f32>(search.rowWeights + (<usize>row << 2)) * scale;
    if (width == 1) distancesOf(1, target, plane, weight, codewords, distance);
    else if (width == 2) distancesOf(2, target, plane, weight, codewords, distance);
    else if (width == 3) distancesOf(3, target, plane, weight, codewords, distance);
    else distancesOf(4, target, plane, weight, codewords, distance);
    const next = cost + bytes;
    const low = three ? step3(cost, next, schedule, distance) : step4(cost, next, schedule, distance);
    const least = smallestLane(low);
    if (least > RENORMALISE_ABOVE) {
      if (least == INFINITE) return false;
      lower(next, bytes, least);
    }
    cost = next;
    distance += 512;
    row += interleave;
    if (row >= rows) row -= rows;
  }
  return true;
}

/**
 * Follows survivors from `position` after `from` steps back to the state after `to` steps, and returns its
 * position. `row` is the row of step from - 1; with `write` the codes and path on the way are stored.
 */
function traceback(search: Search, position: i32, row: i32, from: i32, to: i32, write: bool): i32 {
  const three = search.codeBits == 3;
  const bits = three ? 3 : 4;
  const branches = 1 << bits;
  const bytes: usize = three ? 1024 : 512;
  const codeOf = search.schedule + bytes;
  for (let k = from - 1; k >= to; k--) {
    const cost = search.costs + <usize>k * bytes;
    const b = position & (branches - 1);
    const j = position >> bits;
    const source = search.schedule + (<usize>(j << bits) << 1);
    const index = (three ? (j >> 4) << 6 : 0) | b;
    const distance = search.distances + (<usize>k << 9) + (<usize>index << 1);
    let best: u32 = -1;
    for (let a = 0; a < branches; a++) {
      const previous = <u32>load<u16>(cost + load<u16>(source + (a << 1)));
      const key = ((previous + <u32>load<u16>(distance + (<usize>a << (bits + 1)))) << 4) | a;
      best = min(best, key);
    }
    const a = best & 15;
    if (write) {
      store<u8>(search.codes + row, load<u8>(codeOf + position));
      store<u8>(search.path + row, <u8>(index | (a << bits)));
      row -= search.interleave;
      if (row < 0) row += search.rows;
    }
    position = load<u16>(source + (a << 1)) >> 1;
  }
  return position;
}

function bestPosition(cost: usize, bytes: usize): i32 {
  let best: u32 = -1;
  for (let p: usize = 0; p < bytes; p += 2) best = min(best, (<u32>load<u16>(cost + p) << 12) | <u32>(p >> 1));
  return best & 4095;
}

function setStart(search: Search, position: i32, bytes: usize): void {
  memory.fill(search.costs, position < 0 ? 0 : 0xff, bytes);
  if (position >= 0) store<u16>(search.costs + (<usize>position << 1), 0);
}

/** Row of step `k` of the sequence whose first row is `first`. */
// @ts-ignore: decorator
@inline
function rowAt(search: Search, first: i32, k: i32): i32 {
  return <i32>((<i64>first + <i64>k * search.interleave) % search.rows);
}

/** The best codes from state `start` to state `end`, or to any if that is negative. */
function searchPath(search: Search, first: i32, steps: i32, start: i32, end: i32, scale: f32): bool {
  const bytes: usize = search.codeBits == 3 ? 1024 : 512;
  let done = 0;
  while (steps - done > PIECE + DELAY) {
    setStart(search, start, bytes);
    if (!forward(search, rowAt(search, first, done), PIECE + DELAY, scale)) return false;
    const ahead = bestPosition(search.costs + <usize>(PIECE + DELAY) * bytes, bytes);
    start = traceback(search, ahead, 0, PIECE + DELAY, PIECE, false);
    traceback(search, start, rowAt(search, first, done + PIECE - 1), PIECE, 0, true);
    done += PIECE;
  }
  setStart(search, start, bytes);
  if (!forward(search, rowAt(search, first, done), steps - done, scale)) return false;
  const last = search.costs + <usize>(steps - done) * bytes;
  if (end < 0) end = bestPosition(last, bytes);
  else if (load<u16>(last + (<usize>end << 1)) == INFINITE) return false;
  traceback(search, end, rowAt(search, first, steps - 1), steps - done, 0, true);
  return true;
}

/**
 * Cyclic: a pass from any to any state over the rows around the first one fixes the state before it; then
 * the path from that state back to it. Nearly always the best cycle; exhaustive would be a pass a state.
 */
function searchCycle(search: Search, first: i32, steps: i32, scale: f32): bool {
  const bytes: usize = search.codeBits == 3 ? 1024 : 512;
  const around = min(DELAY, steps);
  setStart(search, -1, bytes);
  if (!forward(search, rowAt(search, first, steps - around), 2 * around, scale)) return false;
  const end = bestPosition(search.costs + <usize>(2 * around) * bytes, bytes);
  const seam = traceback(search, end, 0, 2 * around, around, false);
  return searchPath(search, first, steps, seam, seam, scale);
}

function greatestCommonDivisor(a: i32, b: i32): i32 {
  while (b != 0) {
    const rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

/** All sequences of one column group. Returns 0, or 1 if no scale was coarse enough (targets not finite). */
export function viterbi(search: Search): i32 {
  const rows = search.rows;
  const interleave = search.interleave;
  const cyclic = search.tailBiting != 0;
  const sequences = cyclic ? greatestCommonDivisor(rows, interleave) : min(rows, interleave);
  for (let s = 0; s < sequences; s++) {
    const steps = cyclic ? rows / sequences : (rows - s + interleave - 1) / interleave;
    let scale = search.scale;
    let tries = 0;
    while (true) {
      const found = cyclic
        ? searchCycle(search, s, steps, scale)
        : searchPath(search, s, steps, load<u16>(search.starts + (<usize>s << 1)), -1, scale);
      if (found) break;
      if (++tries > MAXIMUM_RETRIES) return 1;
      scale *= 0.125;
    }
  }
  return 0;
}
