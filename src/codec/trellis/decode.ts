/** Plain decoding of a trellis-coded matrix to dense weights, the definition of the format's arithmetic. */
import type { CodedMatrix } from "../coded.js";
import { createRotation, unrotateRows } from "../rotation.js";
import { columnGroups, stateCodes, type TrellisCode } from "./code.js";
import { windowMap } from "./maps.js";
import { mapBytes } from "./schedule.js";
import { pairedCodes, storedScales, storedTables, tablesByWidth, validateTrellis } from "./stored.js";

/** The weights [rows, columns], not rotated. Validates first: throws CorruptFileError naming `name`. */
export function decodeTrellis(coded: CodedMatrix, name?: string): Float32Array {
  const { code, seed } = validateTrellis(coded, name);
  const { rows, columns } = coded;
  const bytes = windowBytes(coded, code);
  const tables = tablesByWidth(storedTables(coded), code.widths);
  const scales = storedScales(coded);
  const out = new Float32Array(rows * columns);
  const groups = columnGroups(code.widths, columns);
  groups.forEach(({ start, columns: count, width }, g) => {
    const table = tables.get(width)!;
    for (let r = 0; r < rows; r++) {
      const u = bytes[r * groups.length + g];
      for (let v = 0; v < count; v++)
        out[r * columns + start + v] =
          scales[r] * (table[(u & 15) * width + v] + table[(16 + (u >> 4)) * width + v]);
    }
  });
  unrotateRows(createRotation(columns, seed), out, rows);
  return out;
}

/** Byte u of every window, [rows][groups]: which entries of A (low nibble) and B (high) make a weight. */
export function windowBytes(coded: CodedMatrix, code: TrellisCode): Uint8Array {
  const { rows, columns } = coded;
  const { codeBits, interleave, tailBiting, widths } = code;
  const pairs = pairedCodes(coded, code);
  const maps = new Map(
    widths.map((width) => [width, mapBytes(windowMap(codeBits, width, code.maps), codeBits)]),
  );
  const ages = stateCodes(codeBits);
  const groups = columnGroups(widths, columns);
  const out = new Uint8Array(rows * groups.length);
  groups.forEach(({ width }, g) => {
    const map = maps.get(width)!;
    const shift = 4 * (g & 1);
    const stream = pairs.subarray((g >> 1) * rows, ((g >> 1) + 1) * rows);
    for (let r = 0; r < rows; r++) {
      let u = 0;
      let row = r;
      for (let age = 0; age <= ages; age++) {
        u ^= map[16 * age + ((stream[row] >> shift) & 15)];
        row -= interleave;
        if (row < 0) {
          if (!tailBiting) break;
          row = ((row % rows) + rows) % rows;
        }
      }
      out[r * groups.length + g] = u;
    }
  });
  return out;
}
