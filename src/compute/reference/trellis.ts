/**
 * The definition of trellis-coded weights, one weight at a time: follow the codes of a column group back
 * through the rows, XOR their maps to a byte, add two table entries.
 */
import type { TrellisWeights } from "../backend.js";
import { trellisShape } from "../checks.js";

/** Contents of the buffers of a coded matrix. */
export interface TrellisContents {
  readonly codes: Uint8Array;
  readonly tables: Float32Array;
  readonly scales: Float32Array;
  readonly maps: Uint8Array;
}

/** The row before `row` in its sequence, or -1 before the first when the sequences have a start. */
function predecessor(row: number, { rows, interleave, tailBiting }: TrellisWeights): number {
  if (row < 0) return -1;
  const previous = row - interleave;
  if (previous >= 0) return previous;
  return tailBiting ? ((previous % rows) + rows) % rows : -1;
}

/** Row `row` of the matrix, in the rotated basis: [columns]. */
export function decodeRow(weight: TrellisWeights, contents: TrellisContents, row: number): Float64Array {
  const { rows, columns, widths } = weight;
  const { codes, tables, scales, maps } = contents;
  const { distinct, window } = trellisShape(weight);
  const values = new Float64Array(columns);
  for (let column = 0, group = 0; column < columns; group++) {
    const width = widths[group % widths.length];
    const kind = distinct.indexOf(width);
    const table = distinct.slice(0, kind).reduce((sum, w) => sum + 32 * w, 0);
    let u = 0;
    for (let age = 0, r = row; age < window; age++, r = predecessor(r, weight)) {
      const byte = r < 0 ? 0 : codes[(group >> 1) * rows + r];
      const code = group % 2 === 0 ? byte & 15 : byte >> 4;
      u ^= maps[(kind * window + age) * 16 + code];
    }
    for (let v = 0; v < width && column < columns; v++, column++) {
      const a = tables[table + (u & 15) * width + v];
      const b = tables[table + (16 + (u >> 4)) * width + v];
      values[column] = scales[row] * (a + b);
    }
  }
  return values;
}
