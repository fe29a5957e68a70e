/**
 * Codes one matrix (or a chunk of its rows) column group by column group, with the error of finished groups
 * fed back into the targets of later ones (LDLQ: QuIP, arXiv 2307.13304; for tr(E H Eᵀ) = |E M|², H = M Mᵀ,
 * M upper triangular, it is exact). For group g, with w, e and q rows of weights, errors and codewords:
 *
 *   (E M)_g = t - q M_gg   with   t = w M_gg + sum over earlier groups i of e_i M_ig
 *
 * so the search runs on targets t and codewords q M_gg: the true metric within the group, and no solve.
 * Planes are [columns][stride] so that sequences, which run down the rows, are contiguous.
 */
import { accumulate } from "./linear-algebra";
import { Search } from "./search";
import { viterbi } from "./viterbi";

/** Targets of this many columns take the feedback of all earlier columns in one product. */
const BLOCK = 64;
/** Cost levels of the expected squared error of a row: 64 to 1024 give the same distortion to 4 digits. */
const LEVELS: f64 = 256;

/** One width's code. Every field is one 32-bit word; src/codec/trellis/encode-chunk.ts writes it. */
// @ts-ignore: decorator
@unmanaged
class Codebook {
  schedule: usize;
  /** f32 [width][256] in the order of the distances. */
  codewords: usize;
  /** Expected squared error of a weight (unit variance). */
  distortion: f32;
}

// @ts-ignore: decorator
@unmanaged
class GroupEncoding {
  /** Its rows, stride, row weights, code, sequence and scratch fields are set; the others are set here. */
  search: usize;
  groups: i32;
  /** i32 [groups][2]: first column, columns. */
  ranges: usize;
  /** usize [groups]: Codebook of each group. */
  codebooks: usize;
  /** f32 [columns][stride]: weights; errors (written). */
  weights: usize;
  errors: usize;
  /** f32 [columns][factorStride]: M, or 0 for the identity. */
  factor: usize;
  factorStride: i32;
  /** u16 [groups][interleave]: first states, when not tail-biting. */
  starts: usize;
  /** u8 [groups][rows], written. */
  codes: usize;
  /** u8 [rows]: scratch. */
  path: usize;
  /** f32 [64 + 3][stride] each: E M and W M of the current block. */
  errorProducts: usize;
  weightProducts: usize;
  /** f32 [4][256]: scratch. */
  metricCodewords: usize;
  /** f32 [6][stride], added to: |W M|², W M · Q M, |Q M|², |W|², W · Q, |Q|² of each row. */
  statistics: usize;
  /** i32, incremented once a group. */
  progress: usize;
  /** i32: not 0 asks to stop. */
  cancelled: usize;
  /** Written: 0, 1 if the search failed (weights or Hessian not finite), 2 if cancelled. */
  status: i32;
}

export function encodeGroups(encoding: GroupEncoding): void {
  encoding.status = encodeAll(encoding);
}

function encodeAll(encoding: GroupEncoding): i32 {
  const search = changetype<Search>(encoding.search);
  const stride = search.stride;
  const groups = encoding.groups;
  const ranges = encoding.ranges;
  const factor = encoding.factor;
  const factorStride = encoding.factorStride;
  const products = encoding.errorProducts;
  const plane = <usize>stride << 2;

  for (let first = 0; first < groups; ) {
    const blockStart = load<i32>(ranges + (<usize>first << 3));
    let last = first;
    let blockEnd = blockStart;
    while (last < groups && blockEnd - blockStart < BLOCK) {
      blockEnd = load<i32>(ranges + (<usize>last << 3)) + load<i32>(ranges + (<usize>last << 3), 4);
      last++;
    }
    const block = blockEnd - blockStart;
    memory.fill(products, 0, <usize>block * plane);
    if (factor != 0) {
      const column = factor + (<usize>blockStart << 2);
      const row = <usize>factorStride << 2;
      accumulate(products, stride, column, 4, row, encoding.errors, stride, block, stride, blockStart, 1);
      memory.fill(encoding.weightProducts, 0, <usize>block * plane);
      accumulate(encoding.weightProducts, stride, column, 4, row, encoding.weights, stride, block, stride, blockEnd, 1);
    }

    for (let g = first; g < last; g++) {
      if (load<i32>(encoding.cancelled) != 0) return 2;
      const column = load<i32>(ranges + (<usize>g << 3));
      const width = load<i32>(ranges + (<usize>g << 3), 4);
      if (encodeGroup(encoding, search, g, column, width, products + <usize>(column - blockStart) * plane) != 0) return 1;
      const rest = column + width;
      if (factor != 0 && rest < blockEnd)
        accumulate(
          products + <usize>(rest - blockStart) * plane, stride,
          factor + ((<usize>column * factorStride + rest) << 2), 4, <usize>factorStride << 2,
          encoding.errors + <usize>column * plane, stride, blockEnd - rest, stride, width, 1,
        );
      store<i32>(encoding.progress, load<i32>(encoding.progress) + 1);
    }
    first = last;
    addStatistics(encoding, search, blockStart, block);
  }
  return 0;
}

/** `targets` [width][stride] holds the feedback of earlier columns and receives this group's part of E M. */
function encodeGroup(encoding: GroupEncoding, search: Search, g: i32, column: i32, width: i32, targets: usize): i32 {
  const codebook = changetype<Codebook>(load<usize>(encoding.codebooks + (<usize>g << 2)));
  const stride = search.stride;
  const rows = search.rows;
  const plane = <usize>stride << 2;
  const metric = encoding.metricCodewords;
  const weights = encoding.weights + <usize>column * plane;
  const errors = encoding.errors + <usize>column * plane;
  const factor = encoding.factor;

  memory.fill(metric, 0, <usize>width << 10);
  let norm: f64 = 0;
  for (let v = 0; v < width; v++) {
    for (let u = 0; u <= v; u++) {
      let x: f32 = u == v ? 1 : 0;
      if (factor != 0) x = load<f32>(factor + ((<usize>(column + u) * encoding.factorStride + column + v) << 2));
      norm += <f64>x * <f64>x;
      addScaled(targets + <usize>v * plane, weights + <usize>u * plane, x, plane);
      addScaled(metric + (<usize>v << 10), codebook.codewords + (<usize>u << 10), x, 1024);
    }
  }

  search.targets = targets;
  search.width = width;
  search.scale = <f32>(LEVELS / (norm * <f64>codebook.distortion));
  search.codewords = metric;
  search.schedule = codebook.schedule;
  search.starts = encoding.starts + <usize>(g * search.interleave) * 2;
  search.codes = encoding.codes + <usize>g * rows;
  search.path = encoding.path;
  if (viterbi(search) != 0) return 1;

  for (let v = 0; v < width; v++) {
    const t = targets + <usize>v * plane;
    const w = weights + <usize>v * plane;
    const e = errors + <usize>v * plane;
    const q = codebook.codewords + (<usize>v << 10);
    const qm = metric + (<usize>v << 10);
    for (let r = 0; r < rows; r++) {
      const chosen = <usize>load<u8>(encoding.path + r) << 2;
      const p = <usize>r << 2;
      store<f32>(e + p, load<f32>(w + p) - load<f32>(q + chosen));
      store<f32>(t + p, load<f32>(t + p) - load<f32>(qm + chosen));
    }
  }
  return 0;
}

/** y += scale * x over `bytes`. */
function addScaled(y: usize, x: usize, scale: f32, bytes: usize): void {
  const s = f32x4.splat(scale);
  for (let p: usize = 0; p < bytes; p += 16) v128.store(y + p, f32x4.add(v128.load(y + p), f32x4.mul(s, v128.load(x + p))));
}

function addStatistics(encoding: GroupEncoding, search: Search, first: i32, columns: i32): void {
  const plane = <usize>search.stride << 2;
  const identity = encoding.factor == 0;
  for (let j = 0; j < columns; j++) {
    const w = encoding.weights + <usize>(first + j) * plane;
    const e = encoding.errors + <usize>(first + j) * plane;
    const wm = identity ? w : encoding.weightProducts + <usize>j * plane;
    const em = encoding.errorProducts + <usize>j * plane;
    for (let p: usize = 0; p < plane; p += 16) {
      const a = v128.load(wm + p);
      const b = f32x4.sub(a, v128.load(em + p));
      const c = v128.load(w + p);
      const d = f32x4.sub(c, v128.load(e + p));
      let s = encoding.statistics + p;
      v128.store(s, f32x4.add(v128.load(s), f32x4.mul(a, a)));
      s += plane;
      v128.store(s, f32x4.add(v128.load(s), f32x4.mul(a, b)));
      s += plane;
      v128.store(s, f32x4.add(v128.load(s), f32x4.mul(b, b)));
      s += plane;
      v128.store(s, f32x4.add(v128.load(s), f32x4.mul(c, c)));
      s += plane;
      v128.store(s, f32x4.add(v128.load(s), f32x4.mul(c, d)));
      s += plane;
      v128.store(s, f32x4.add(v128.load(s), f32x4.mul(d, d)));
    }
  }
}
