/**
 * The factor that error feedback needs: H = M Mᵀ with M upper triangular, in place, blocks of 64 from the
 * last to the first. f32 storage and updates, f64 inside a block; damping keeps the pivots well above the
 * rounding error.
 */
import { accumulate } from "./linear-algebra";

const BLOCK = 64;

/**
 * `h` [order][stride] symmetric (the upper triangle is read); the lower triangle of the result is 0.
 * `panel` holds 64 * stride floats. `status` (i32) becomes 0, or 1 if H is not positive definite.
 */
export function choleskyFactor(h: usize, order: i32, stride: i32, panel: usize, status: usize): void {
  store<i32>(status, 1);
  const bytes = <usize>stride << 2;
  for (let start = ((order - 1) / BLOCK) * BLOCK; start >= 0; start -= BLOCK) {
    const end = min(order, start + BLOCK);
    const size = end - start;
    const corner = h + <usize>start * bytes + (<usize>start << 2);
    if (!factorBlock(corner, size, bytes)) return;
    if (start == 0) break;

    // The columns above the block, transposed so that the solve runs along memory: panel[k][i] = H[i][start + k].
    const above = h + (<usize>start << 2);
    for (let i = 0; i < start; i++)
      for (let k = 0; k < size; k++)
        store<f32>(panel + <usize>k * bytes + (<usize>i << 2), load<f32>(above + <usize>i * bytes + (<usize>k << 2)));
    for (let j = size - 1; j >= 0; j--) {
      const row = panel + <usize>j * bytes;
      const factors = corner + <usize>j * bytes;
      // The blocks before this one are whole, so `start` is a multiple of 16.
      accumulate(row, stride, factors + (<usize>(j + 1) << 2), 0, 4, row + bytes, stride, 1, start, size - 1 - j, -1);
      const inverse = f32x4.splat(<f32>(1 / <f64>load<f32>(factors + (<usize>j << 2))));
      for (let p = row; p < row + (<usize>start << 2); p += 16) v128.store(p, f32x4.mul(v128.load(p), inverse));
    }
    for (let i = 0; i < start; i++)
      for (let k = 0; k < size; k++)
        store<f32>(above + <usize>i * bytes + (<usize>k << 2), load<f32>(panel + <usize>k * bytes + (<usize>i << 2)));

    for (let i = 0; i < start; i += BLOCK) {
      const offset = <usize>i << 2;
      accumulate(h + <usize>i * bytes + offset, stride, panel + offset, 4, bytes, panel + offset, stride, BLOCK, start - i, size, -1);
    }
  }
  for (let i = 1; i < order; i++) memory.fill(h + <usize>i * bytes, 0, <usize>i << 2);
  store<i32>(status, 0);
}

function factorBlock(corner: usize, size: i32, bytes: usize): bool {
  for (let j = size - 1; j >= 0; j--) {
    const rowJ = corner + <usize>j * bytes;
    let pivot: f64 = load<f32>(rowJ + (<usize>j << 2));
    for (let k = j + 1; k < size; k++) {
      const x: f64 = load<f32>(rowJ + (<usize>k << 2));
      pivot -= x * x;
    }
    // Not-a-number fails the comparison too.
    if (!(pivot > 0)) return false;
    const root = Math.sqrt(pivot);
    store<f32>(rowJ + (<usize>j << 2), <f32>root);
    for (let i = 0; i < j; i++) {
      const rowI = corner + <usize>i * bytes;
      let sum: f64 = load<f32>(rowI + (<usize>j << 2));
      for (let k = j + 1; k < size; k++)
        sum -= <f64>load<f32>(rowI + (<usize>k << 2)) * <f64>load<f32>(rowJ + (<usize>k << 2));
      store<f32>(rowI + (<usize>j << 2), <f32>(sum / root));
    }
  }
  return true;
}
