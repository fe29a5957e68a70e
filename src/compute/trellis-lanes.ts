/**
 * The order in which the kernels hold the rows of a trellis-coded matrix. A sequence of codes runs down the
 * rows; cut into runs of equal length, one run for each of the 16 lanes of a vector, it is decoded 16 rows at a
 * time without moving codes between lanes: the code before is always the one 16 bytes before.
 */

export const LANES = 16;
/** Vectors before the first step of a stream: the codes that precede each lane's first row. */
export const PREFIX = 2;

export interface Chaining {
  readonly rows: number;
  /** S: row r follows row r - S. */
  readonly interleave: number;
  /** Whether rows before the first are the last ones, or have code 0. */
  readonly tailBiting: boolean;
}

export interface Lanes {
  /** Vectors of a stream, its prefix not counted. */
  readonly steps: number;
  /** [steps * 16]: the row at position step * 16 + lane, -1 where there is none. */
  readonly rowAt: Int32Array;
}

/** The row before `row` in its sequence, or -1 before the first. */
export function precedingRow(row: number, { rows, interleave, tailBiting }: Chaining): number {
  if (row < 0) return -1;
  const before = row - interleave;
  if (before >= 0) return before;
  return tailBiting ? ((before % rows) + rows) % rows : -1;
}

/** Every sequence gets as many lanes as each can have, every lane a run of it. Interleave is 1 to 16. */
export function lanesOf(chaining: Chaining): Lanes {
  const { rows, interleave, tailBiting } = chaining;
  const count = tailBiting ? greatestCommonDivisor(rows, interleave) : Math.min(rows, interleave);
  const each = Math.floor(LANES / count);
  const steps = Math.ceil(Math.ceil(rows / count) / each);
  const rowAt = new Int32Array(LANES * steps).fill(-1);
  for (let sequence = 0; sequence < count; sequence++) {
    const length = tailBiting ? rows / count : Math.ceil((rows - sequence) / interleave);
    for (let i = 0, row = sequence; i < length; i++, row = (row + interleave) % rows) {
      const lane = sequence * each + Math.floor(i / steps);
      rowAt[(i % steps) * LANES + lane] = row;
    }
  }
  return { steps, rowAt };
}

/** [rows]: where each row is. */
export function positionsOf({ rowAt }: Lanes, rows: number): Int32Array {
  const positions = new Int32Array(rows);
  rowAt.forEach((row, position) => {
    if (row >= 0) positions[row] = position;
  });
  return positions;
}

/** Codes [pairs][rows] as streams [pairs][2 + steps][16]. */
export function toLanes(codes: Uint8Array, { steps, rowAt }: Lanes, chaining: Chaining): Uint8Array {
  const { rows } = chaining;
  const pairs = codes.length / rows;
  const length = LANES * (PREFIX + steps);
  const streams = new Uint8Array(pairs * length);
  // Rows of a whole stream, so that the loop over the codes is a plain gather.
  const source = new Int32Array(length).fill(-1);
  source.set(rowAt, LANES * PREFIX);
  for (let lane = 0; lane < LANES; lane++) {
    const before = precedingRow(rowAt[lane], chaining);
    source[LANES + lane] = before;
    source[lane] = precedingRow(before, chaining);
  }
  for (let pair = 0; pair < pairs; pair++) {
    const from = pair * rows;
    const to = pair * length;
    for (let i = 0; i < length; i++) if (source[i] >= 0) streams[to + i] = codes[from + source[i]];
  }
  return streams;
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
