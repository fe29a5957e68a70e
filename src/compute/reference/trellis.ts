/**
 * The definition of trellis-coded weights, one weight at a time: XOR the maps of a code and the two
 * before it to a byte, add two table entries.
 */
import type { TrellisWeights } from "../backend.js";
import { trellisShape } from "../checks.js";
import { LANES, PREFIX } from "../trellis-lanes.js";

/** Contents of the buffers of a coded matrix. */
export interface TrellisContents {
  readonly codes: Uint8Array;
  readonly tables: Float32Array;
  readonly scales: Float32Array;
  readonly maps: Uint8Array;
}

/** Row `row` of the matrix, in the rotated basis: [columns]. */
export function decodeRow(weight: TrellisWeights, contents: TrellisContents, row: number): Float64Array {
  const { columns, widths, tileSteps, positions } = weight;
  const { codes, tables, scales, maps } = contents;
  const { distinct, pairs } = trellisShape(weight);
  const tile = Math.floor(positions[row] / (LANES * tileSteps));
  const place = LANES * PREFIX + positions[row] - LANES * tileSteps * tile;
  const values = new Float64Array(columns);
  for (let column = 0, group = 0; column < columns; group++) {
    const width = widths[group % widths.length];
    const kind = distinct.indexOf(width);
    const table = distinct.slice(0, kind).reduce((sum, w) => sum + 32 * w, 0);
    const at = LANES * (tile * pairs + (group >> 1)) * (PREFIX + tileSteps) + place;
    const [n, before, twoBefore] = [at, at - LANES, at - 2 * LANES].map((place) =>
      group % 2 === 0 ? codes[place] & 15 : codes[place] >> 4,
    );
    const u = n ^ (n << 4) ^ maps[32 * kind + before] ^ maps[32 * kind + 16 + twoBefore];
    for (let v = 0; v < width && column < columns; v++, column++) {
      const a = tables[table + (u & 15) * width + v];
      const b = tables[table + (16 + (u >> 4)) * width + v];
      values[column] = scales[row] * (a + b);
    }
  }
  return values;
}
