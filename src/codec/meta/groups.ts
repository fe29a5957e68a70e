/**
 * Which sub-vectors an RLN group has. Sub-vectors are numbered along the rows: sub-vector i stands at row
 * floor(i / perRow), columns d (i mod perRow) and on, with perRow = columns / d.
 */
import { type Rln, rowParts } from "./options.js";

export interface Groups {
  /** Sub-vectors, group after group. */
  readonly members: Int32Array;
  /** Group g is members[starts[g]] .. members[starts[g + 1] - 1]. */
  readonly starts: Int32Array;
}

/** With rln "off" every sub-vector is a group of its own (nothing is normalised; batches may mix at will). */
export function groupSubVectors(rows: number, perRow: number, rln: Rln): Groups {
  const count = rows * perRow;
  const members = Int32Array.from({ length: count }, (_, i) => i);
  if (rln !== "columns") {
    const size = rln === "rows" ? perRow : 1;
    return { members, starts: Int32Array.from({ length: count / size + 1 }, (_, g) => g * size) };
  }
  const parts = rowParts(rows, perRow);
  const starts = new Int32Array(perRow * parts + 1);
  let at = 0;
  for (let column = 0; column < perRow; column++) {
    for (let part = 0; part < parts; part++) {
      const first = Math.floor((part * rows) / parts);
      const end = Math.floor(((part + 1) * rows) / parts);
      for (let row = first; row < end; row++) members[at++] = row * perRow + column;
      starts[column * parts + part + 1] = at;
    }
  }
  return { members, starts };
}
