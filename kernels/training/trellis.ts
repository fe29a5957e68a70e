// Gradients of a trellis-coded matrix's scales and tables from that of its weights, in the rotated basis:
// weight (r, c) = scales[r] * (A[u & 15][v] + B[u >> 4][v]).

import { f32Bytes } from "../vector";

/**
 * Rows first .. end - 1 of dWeight [rows, columns]. `windows` [rows][groups] holds u; `layout` [groups] of
 * four words: first column, columns, the offset in floats of its A in `tables` (B comes 16 * width later), and
 * the width. dScales [rows] is added to, and so is dTables, which is this call's own.
 */
export function trellisGradient(
  dWeight: usize,
  columns: i32,
  windows: usize,
  groups: i32,
  layout: usize,
  tables: usize,
  scales: usize,
  dScales: usize,
  dTables: usize,
  first: i32,
  end: i32,
): void {
  for (let r = first; r < end; r++) {
    const d = dWeight + f32Bytes(r) * <usize>columns;
    const scale = load<f32>(scales + f32Bytes(r));
    let sum: f32 = 0;
    let u = windows + <usize>r * <usize>groups;
    let group = layout;
    for (let g = 0; g < groups; g++, group += 16, u++) {
      let p = d + f32Bytes(load<i32>(group));
      const count = load<i32>(group, 4);
      const width = load<i32>(group, 12);
      const byte = <i32>load<u8>(u);
      const base = f32Bytes(load<i32>(group, 8));
      const low = base + f32Bytes((byte & 15) * width);
      const high = base + f32Bytes((16 + (byte >> 4)) * width);
      for (let v: usize = 0; v < f32Bytes(count); v += 4, p += 4) {
        const g = load<f32>(p);
        const a = low + v;
        const b = high + v;
        sum += g * (load<f32>(tables + a) + load<f32>(tables + b));
        store<f32>(dTables + a, load<f32>(dTables + a) + scale * g);
        store<f32>(dTables + b, load<f32>(dTables + b) + scale * g);
      }
    }
    const s = dScales + f32Bytes(r);
    store<f32>(s, load<f32>(s) + sum);
  }
}
