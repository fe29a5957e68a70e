/**
 * The definition of trellis-coded weights, one weight at a time: XOR the maps of a code and the two
 * before it to a byte, add two table entries.
 */
import type { TrellisWeights } from "../backend.js";
import { trellisShape } from "../checks.js";
import { LANES, placeOf } from "../trellis-lanes.js";

/** Contents of the buffers of a coded matrix. */
export interface TrellisContents {
  readonly codes: Uint8Array;
  readonly tables: Float32Array;
  readonly scales: Float32Array;
  readonly maps: Uint8Array;
}

/** Row `row` of the matrix, in the rotated basis: [columns]. */
export function decodeRow(weight: TrellisWeights, contents: TrellisContents, row: number): Float64Array {
  const { columns, widths, positions } = weight;
  const { codes, tables, scales, maps } = contents;
  const { distinct, pairs } = trellisShape(weight);
  const step = Math.floor(positions[row] / LANES);
  const lane = positions[row] % LANES;
  const values = new Float64Array(columns);
  for (let column = 0, group = 0; column < columns; group++) {
    const width = widths[group % widths.length];
    const kind = distinct.indexOf(width);
    const table = distinct.slice(0, kind).reduce((sum, w) => sum + 32 * w, 0);
    const [n, before, twoBefore] = [step, step - 1, step - 2].map((s) => {
      const both = codes[placeOf(weight, pairs, group >> 1, s) + lane];
      return group % 2 === 0 ? both & 15 : both >> 4;
    });
    const u = n ^ (n << 4) ^ maps[32 * kind + before] ^ maps[32 * kind + 16 + twoBefore];
    for (let v = 0; v < width && column < columns; v++, column++) {
      const a = tables[table + (u & 15) * width + v];
      const b = tables[table + (16 + (u >> 4)) * width + v];
      values[column] = scales[row] * (a + b);
    }
  }
  return values;
}
