/**
 * f32 matrix kernels of the trellis encoder. Planes are row-major with a stride in floats; strides and widths
 * are multiples of 16. src/codec/trellis/planes.ts picks strides of an odd number of cache lines: with a
 * stride of, say, 6144 bytes a column of tiles would fall into 2 of the 64 sets of the first cache.
 */

/** Depth of one pass: 256 x 16 floats of B stay in the first cache, 256 x 64 of A in the second. */
const DEPTH = 256;

/**
 * C [count][width] += sign * A B over `depth`, B [depth][bStride]; element (i, k) of A is at
 * a + i * aRow + k * aColumn bytes. The order of additions depends on nothing but depth.
 */
export function accumulate(
  c: usize, cStride: i32, a: usize, aRow: usize, aColumn: usize, b: usize, bStride: i32,
  count: i32, width: i32, depth: i32, sign: f32,
): void {
  const cBytes = <usize>cStride << 2;
  const bBytes = <usize>bStride << 2;
  const scale = f32x4.splat(sign);
  for (let from = 0; from < depth; from += DEPTH) {
    const steps = min(DEPTH, depth - from);
    const aFrom = a + <usize>from * aColumn;
    const bFrom = b + <usize>from * bBytes;
    for (let column: usize = 0; column < <usize>width << 2; column += 64) {
      let i = 0;
      for (; i <= count - 4; i += 4)
        tile4(c + <usize>i * cBytes + column, cBytes, aFrom + <usize>i * aRow, aRow, aColumn, bFrom + column, bBytes, steps, scale);
      for (; i < count; i++)
        tile1(c + <usize>i * cBytes + column, aFrom + <usize>i * aRow, aColumn, bFrom + column, bBytes, steps, scale);
    }
  }
}

// @ts-ignore: decorator
@inline
function addTo(p: usize, scale: v128, x: v128): void {
  v128.store(p, f32x4.add(v128.load(p), f32x4.mul(scale, x)));
}

function tile4(c: usize, cBytes: usize, a: usize, aRow: usize, aColumn: usize, b: usize, bBytes: usize, steps: i32, scale: v128): void {
  const zero = f32x4.splat(0);
  let s00 = zero, s01 = zero, s02 = zero, s03 = zero;
  let s10 = zero, s11 = zero, s12 = zero, s13 = zero;
  let s20 = zero, s21 = zero, s22 = zero, s23 = zero;
  let s30 = zero, s31 = zero, s32 = zero, s33 = zero;
  let a1 = a + aRow, a2 = a1 + aRow, a3 = a2 + aRow;
  for (let k = 0; k < steps; k++) {
    const b0 = v128.load(b), b1 = v128.load(b, 16), b2 = v128.load(b, 32), b3 = v128.load(b, 48);
    let x = v128.load32_splat(a);
    s00 = f32x4.add(s00, f32x4.mul(x, b0));
    s01 = f32x4.add(s01, f32x4.mul(x, b1));
    s02 = f32x4.add(s02, f32x4.mul(x, b2));
    s03 = f32x4.add(s03, f32x4.mul(x, b3));
    x = v128.load32_splat(a1);
    s10 = f32x4.add(s10, f32x4.mul(x, b0));
    s11 = f32x4.add(s11, f32x4.mul(x, b1));
    s12 = f32x4.add(s12, f32x4.mul(x, b2));
    s13 = f32x4.add(s13, f32x4.mul(x, b3));
    x = v128.load32_splat(a2);
    s20 = f32x4.add(s20, f32x4.mul(x, b0));
    s21 = f32x4.add(s21, f32x4.mul(x, b1));
    s22 = f32x4.add(s22, f32x4.mul(x, b2));
    s23 = f32x4.add(s23, f32x4.mul(x, b3));
    x = v128.load32_splat(a3);
    s30 = f32x4.add(s30, f32x4.mul(x, b0));
    s31 = f32x4.add(s31, f32x4.mul(x, b1));
    s32 = f32x4.add(s32, f32x4.mul(x, b2));
    s33 = f32x4.add(s33, f32x4.mul(x, b3));
    a += aColumn;
    a1 += aColumn;
    a2 += aColumn;
    a3 += aColumn;
    b += bBytes;
  }
  addTo(c, scale, s00);
  addTo(c + 16, scale, s01);
  addTo(c + 32, scale, s02);
  addTo(c + 48, scale, s03);
  c += cBytes;
  addTo(c, scale, s10);
  addTo(c + 16, scale, s11);
  addTo(c + 32, scale, s12);
  addTo(c + 48, scale, s13);
  c += cBytes;
  addTo(c, scale, s20);
  addTo(c + 16, scale, s21);
  addTo(c + 32, scale, s22);
  addTo(c + 48, scale, s23);
  c += cBytes;
  addTo(c, scale, s30);
  addTo(c + 16, scale, s31);
  addTo(c + 32, scale, s32);
  addTo(c + 48, scale, s33);
}

function tile1(c: usize, a: usize, aColumn: usize, b: usize, bBytes: usize, steps: i32, scale: v128): void {
  let s0 = f32x4.splat(0), s1 = s0, s2 = s0, s3 = s0;
  for (let k = 0; k < steps; k++) {
    const x = v128.load32_splat(a);
    s0 = f32x4.add(s0, f32x4.mul(x, v128.load(b)));
    s1 = f32x4.add(s1, f32x4.mul(x, v128.load(b, 16)));
    s2 = f32x4.add(s2, f32x4.mul(x, v128.load(b, 32)));
    s3 = f32x4.add(s3, f32x4.mul(x, v128.load(b, 48)));
    a += aColumn;
    b += bBytes;
  }
  addTo(c, scale, s0);
  addTo(c + 16, scale, s1);
  addTo(c + 32, scale, s2);
  addTo(c + 48, scale, s3);
}

/** target [columns][targetStride] = transpose of source [rows][sourceStride], in 16 x 16 tiles. */
export function transpose(source: usize, sourceStride: i32, rows: i32, columns: i32, target: usize, targetStride: i32): void {
  for (let r0 = 0; r0 < rows; r0 += 16) {
    const r1 = min(rows, r0 + 16);
    for (let c0 = 0; c0 < columns; c0 += 16) {
      const c1 = min(columns, c0 + 16);
      for (let c = c0; c < c1; c++) {
        let from = source + ((<usize>r0 * sourceStride + c) << 2);
        const to = target + ((<usize>c * targetStride) << 2);
        for (let r = r0; r < r1; r++) {
          store<f32>(to + (<usize>r << 2), load<f32>(from));
          from += <usize>sourceStride << 2;
        }
      }
    }
  }
}

/** Transposes x [order][stride] in place. */
export function transposeInPlace(x: usize, order: i32, stride: i32): void {
  for (let i0 = 0; i0 < order; i0 += 16) {
    for (let j0 = i0; j0 < order; j0 += 16) {
      for (let i = i0; i < min(order, i0 + 16); i++) {
        for (let j = max(j0, i + 1); j < min(order, j0 + 16); j++) {
          const p = x + ((<usize>i * stride + j) << 2);
          const q = x + ((<usize>j * stride + i) << 2);
          const held = load<f32>(p);
          store<f32>(p, load<f32>(q));
          store<f32>(q, held);
        }
      }
    }
  }
}

/**
 * The codec's rotation of the columns of x [order][stride], in place: x = (Q ⊗ H) diag(signs) x with Q
 * [m][m] and H Walsh-Hadamard of order / m. `scratch` holds 2 * order * 16 floats.
 */
export function rotateColumns(x: usize, order: i32, stride: i32, width: i32, signs: usize, q: usize, m: i32, scratch: usize): void {
  const hadamard = order / m;
  const bytes = <usize>stride << 2;
  const mixed = scratch + (<usize>order << 6);
  const normalise = f32x4.splat(<f32>(1 / Math.sqrt(<f64>hadamard)));
  for (let column: usize = 0; column < <usize>width << 2; column += 64) {
    for (let i = 0; i < order; i++) {
      const sign = f32x4.mul(normalise, v128.load32_splat(signs + (<usize>i << 2)));
      const from = x + <usize>i * bytes + column;
      const to = scratch + (<usize>i << 6);
      for (let p: usize = 0; p < 64; p += 16) v128.store(to + p, f32x4.mul(sign, v128.load(from + p)));
    }
    for (let half: usize = 64; half < <usize>hadamard << 6; half <<= 1) {
      for (let start = scratch; start < mixed; start += half << 1) {
        for (let p = start; p < start + half; p += 16) {
          const a = v128.load(p);
          const b = v128.load(p + half);
          v128.store(p, f32x4.add(a, b));
          v128.store(p + half, f32x4.sub(a, b));
        }
      }
    }
    let result = scratch;
    if (m > 1) {
      // Q mixes the blocks of H: [m][m] times [m][hadamard * 16].
      memory.fill(mixed, 0, <usize>order << 6);
      accumulate(mixed, hadamard << 4, q, <usize>m << 2, 4, scratch, hadamard << 4, m, hadamard << 4, m, 1);
      result = mixed;
    }
    for (let i = 0; i < order; i++) {
      const from = result + (<usize>i << 6);
      const to = x + <usize>i * bytes + column;
      for (let p: usize = 0; p < 64; p += 16) v128.store(to + p, v128.load(from + p));
    }
  }
}
