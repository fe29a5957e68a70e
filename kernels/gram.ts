// Sums of outer products over tokens: C [m, n] += A [tokens, m]ᵀ B [tokens, n], from panels of 8 columns that
// are contiguous along the tokens. With A = B it is the Gram matrix of calibration Hessians, of which only
// the upper triangle of 8 x 8 blocks is computed and then mirrored.

import { take } from "./counter";
import { add8, store8 } from "./outer";
import { f32Bytes, multiplyAdd } from "./vector";

/** Panels first .. end - 1 of x [tokens, columns], row stride in bytes: out [panel][token][8], zero-padded. */
export function packPanels(
  x: usize,
  xStride: usize,
  tokens: i32,
  columns: i32,
  out: usize,
  first: i32,
  end: i32,
): void {
  for (let panel = first; panel < end; panel++) {
    const width = min(8, columns - (panel << 3));
    let to = out + (<usize>panel * <usize>tokens << 5);
    let from = x + (<usize>panel << 5);
    for (let t = 0; t < tokens; t++, to += 32, from += xStride) {
      if (width == 8) {
        v128.store(to, v128.load(from));
        v128.store(to, v128.load(from, 16), 16);
      } else {
        memory.fill(to, 0, 32);
        memory.copy(to, from, f32Bytes(width));
      }
    }
  }
}

/**
 * Panels first .. end - 1 of eight rows of x [rows, k], row stride in bytes, each transposed: out [panel][k][8],
 * zero-padded. The left side of a product whose reduction runs along x's rows.
 */
export function packRows(
  x: usize,
  xStride: usize,
  rows: i32,
  k: i32,
  out: usize,
  first: i32,
  end: i32,
): void {
  for (let panel = first; panel < end; panel++) {
    const height = min(8, rows - (panel << 3));
    const from = x + (<usize>panel << 3) * xStride;
    let to = out + (<usize>panel * <usize>k << 5);
    let i = 0;
    if (height == 8) {
      for (; i <= k - 4; i += 4, to += 128) {
        transpose4(from + f32Bytes(i), xStride, to);
        transpose4(from + 4 * xStride + f32Bytes(i), xStride, to + 16);
      }
    }
    for (; i < k; i++, to += 32) {
      for (let r = 0; r < 8; r++) {
        const value: f32 = r < height ? load<f32>(from + <usize>r * xStride + f32Bytes(i)) : 0;
        store<f32>(to + f32Bytes(r), value);
      }
    }
  }
}

/** Four rows of four elements, transposed to rows 32 bytes apart. */
// @ts-ignore: decorator
@inline
function transpose4(x: usize, stride: usize, to: usize): void {
  const a = v128.load(x);
  const b = v128.load(x + stride);
  const c = v128.load(x + 2 * stride);
  const d = v128.load(x + 3 * stride);
  const ab = v128.shuffle<f32>(a, b, 0, 4, 1, 5);
  const cd = v128.shuffle<f32>(c, d, 0, 4, 1, 5);
  v128.store(to, v128.shuffle<f32>(ab, cd, 0, 1, 4, 5));
  v128.store(to, v128.shuffle<f32>(ab, cd, 2, 3, 6, 7), 32);
  const ba = v128.shuffle<f32>(a, b, 2, 6, 3, 7);
  const dc = v128.shuffle<f32>(c, d, 2, 6, 3, 7);
  v128.store(to, v128.shuffle<f32>(ba, dc, 0, 1, 4, 5), 64);
  v128.store(to, v128.shuffle<f32>(ba, dc, 2, 3, 6, 7), 96);
}

/** Bytes of the right side's panels that are gone through for all of the left side's: they stay in a core's L2. */
const GROUP_BYTES: usize = 3 << 18;

/**
 * C [m, n] += A B over panels, or = where not to `accumulate`. `symmetric`: only 8 x 8 blocks on and above the
 * diagonal. `wide`: pairs of blocks together, for a compiler that makes one instruction of two; the sums are the same.
 * Threads share `counter`, 0 at first, which gives out the work: a panel of the left side by a group of the right's.
 * `scratch`: 256 bytes of this thread's own.
 */
export function multiplyPanels(
  a: usize,
  b: usize,
  c: usize,
  inner: i32,
  m: i32,
  n: i32,
  symmetric: bool,
  wide: bool,
  accumulate: bool,
  counter: usize,
  scratch: usize,
): void {
  const panelBytes = (<usize>inner) << 5;
  const panels = (m + 7) >> 3;
  const blocks = (n + 7) >> 3;
  const group = max(2, <i32>(GROUP_BYTES / panelBytes) & ~1);
  const units = panels * ((blocks + group - 1) / group);
  for (let unit = take(counter); unit < units; unit = take(counter)) {
    const i = unit % panels;
    const from = (unit / panels) * group;
    const end = min(from + group, blocks);
    multiplyPanel(a, b, c, inner, m, n, i, symmetric ? max(i, from) : from, end, wide, accumulate, scratch);
  }
}

/** Panel i of the left side by panels j .. end - 1 of the right. */
function multiplyPanel(
  a: usize,
  b: usize,
  c: usize,
  inner: i32,
  m: i32,
  n: i32,
  i: i32,
  j: i32,
  end: i32,
  wide: bool,
  accumulate: bool,
  scratch: usize,
): void {
  const stride = f32Bytes(n);
  const panelBytes = (<usize>inner) << 5;
  const rows = min(8, m - (i << 3));
  const from = a + <usize>i * panelBytes;
  const to = c + (<usize>i << 3) * stride;
  for (; j < end; j++) {
    const columns = min(8, n - (j << 3));
    const right = b + <usize>j * panelBytes;
    const block = to + (<usize>j << 5);
    if (wide && rows == 8 && j + 2 <= end && (j + 2) << 3 <= n) {
      wideBlock(from, right, panelBytes, inner, block, stride, accumulate);
      wideBlock(from + 16, right, panelBytes, inner, block + 4 * stride, stride, accumulate);
      j++;
    } else if (rows == 8 && columns == 8) {
      halfBlock(from, right, inner, block, stride, accumulate);
      halfBlock(from + 16, right, inner, block + 4 * stride, stride, accumulate);
    } else {
      halfBlock(from, right, inner, scratch, 32, false);
      halfBlock(from + 16, right, inner, scratch + 128, 32, false);
      for (let r = 0; r < rows; r++) {
        for (let s = 0; s < columns; s++) {
          const p = block + <usize>r * stride + f32Bytes(s);
          const sum = load<f32>(scratch + f32Bytes((r << 3) + s));
          store<f32>(p, accumulate ? load<f32>(p) + sum : sum);
        }
      }
    }
  }
}

/** c [4, 8] += four columns of panel a by eight of panel b. */
function halfBlock(a: usize, b: usize, inner: i32, c: usize, stride: usize, accumulate: bool): void {
  const zero = f32x4.splat(0);
  let a0 = zero,
    a1 = zero,
    a2 = zero,
    a3 = zero,
    b0 = zero,
    b1 = zero,
    b2 = zero,
    b3 = zero;
  for (; inner > 0; inner--) {
    const u = v128.load(b);
    const v = v128.load(b, 16);
    let s = v128.load32_splat(a);
    a0 = multiplyAdd(u, s, a0);
    b0 = multiplyAdd(v, s, b0);
    s = v128.load32_splat(a, 4);
    a1 = multiplyAdd(u, s, a1);
    b1 = multiplyAdd(v, s, b1);
    s = v128.load32_splat(a, 8);
    a2 = multiplyAdd(u, s, a2);
    b2 = multiplyAdd(v, s, b2);
    s = v128.load32_splat(a, 12);
    a3 = multiplyAdd(u, s, a3);
    b3 = multiplyAdd(v, s, b3);
    a += 32;
    b += 32;
  }
  put8(c, a0, b0, accumulate);
  put8(c + stride, a1, b1, accumulate);
  put8(c + 2 * stride, a2, b2, accumulate);
  put8(c + 3 * stride, a3, b3, accumulate);
}

/**
 * c [4, 16] += four columns of panel a by eight each of panel b and the panel after it: 16 sums, which are 8 registers
 * of 256 bits where V8 joins neighbours (--experimental-wasm-revectorize), enough to hide the latency of each, and
 * more than there are where it does not.
 */
function wideBlock(
  a: usize,
  b: usize,
  panelBytes: usize,
  inner: i32,
  c: usize,
  stride: usize,
  accumulate: bool,
): void {
  const zero = f32x4.splat(0);
  let a0 = zero,
    a1 = zero,
    a2 = zero,
    a3 = zero,
    b0 = zero,
    b1 = zero,
    b2 = zero,
    b3 = zero,
    c0 = zero,
    c1 = zero,
    c2 = zero,
    c3 = zero,
    d0 = zero,
    d1 = zero,
    d2 = zero,
    d3 = zero;
  let next = b + panelBytes;
  for (; inner > 0; inner--) {
    const u = v128.load(b);
    const v = v128.load(b, 16);
    const w = v128.load(next);
    const x = v128.load(next, 16);
    let s = v128.load32_splat(a);
    a0 = multiplyAdd(u, s, a0);
    b0 = multiplyAdd(v, s, b0);
    c0 = multiplyAdd(w, s, c0);
    d0 = multiplyAdd(x, s, d0);
    s = v128.load32_splat(a, 4);
    a1 = multiplyAdd(u, s, a1);
    b1 = multiplyAdd(v, s, b1);
    c1 = multiplyAdd(w, s, c1);
    d1 = multiplyAdd(x, s, d1);
    s = v128.load32_splat(a, 8);
    a2 = multiplyAdd(u, s, a2);
    b2 = multiplyAdd(v, s, b2);
    c2 = multiplyAdd(w, s, c2);
    d2 = multiplyAdd(x, s, d2);
    s = v128.load32_splat(a, 12);
    a3 = multiplyAdd(u, s, a3);
    b3 = multiplyAdd(v, s, b3);
    c3 = multiplyAdd(w, s, c3);
    d3 = multiplyAdd(x, s, d3);
    a += 32;
    b += 32;
    next += 32;
  }
  put8(c, a0, b0, accumulate);
  put8(c + 32, c0, d0, accumulate);
  put8(c + stride, a1, b1, accumulate);
  put8(c + stride + 32, c1, d1, accumulate);
  put8(c + 2 * stride, a2, b2, accumulate);
  put8(c + 2 * stride + 32, c2, d2, accumulate);
  put8(c + 3 * stride, a3, b3, accumulate);
  put8(c + 3 * stride + 32, c3, d3, accumulate);
}

/** Two vectors added to the eight numbers at c, or in their place. */
// @ts-ignore: decorator
@inline
function put8(c: usize, low: v128, high: v128, accumulate: bool): void {
  if (accumulate) add8(c, low, high);
  else store8(c, low, high);
}

/**
 * Rows first .. end - 1 of c [n, n] (first a multiple of 16): what is above the diagonal is copied to its mirror
 * image below, 16 x 16 elements at a time so that a line of cache is read and written once.
 */
export function mirrorUpper(c: usize, n: i32, first: i32, end: i32): void {
  const stride = f32Bytes(n);
  for (let block = first; block < end; block += 16) {
    const rows = min(block + 16, end);
    for (let left = 0; left < rows; left += 16) {
      for (let i = block; i < rows; i++) {
        const to = c + <usize>i * stride;
        for (let j = left; j < min(i, left + 16); j++)
          store<f32>(to + f32Bytes(j), load<f32>(c + <usize>j * stride + f32Bytes(i)));
      }
    }
  }
}
