/**
 * The order in which the kernels hold the rows of a trellis-coded matrix. A sequence of codes runs down the
 * rows; cut into runs of equal length, one run for each of the 16 lanes of a vector, it is decoded 16 rows at a
 * time without moving codes between lanes: the code before is always the one 16 bytes before.
 */
import type { TrellisCodesOptions } from "./backend.js";

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
  /** Vectors of 16 rows: those of all tiles. */
  readonly steps: number;
  /** Of a tile; `steps` is a multiple of it. */
  readonly tileSteps: number;
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

/**
 * A kernel goes through all groups for no more steps than these, whose sums stay in L1. With 128 a token takes as long
 * while a matrix is in cache, and 10 % longer where it comes from memory (bench/streams.mjs).
 */
const LARGEST_TILE = 64;
/** Tiles for threads have at least as many steps: shorter ones are not worth their start. */
const SMALLEST_TILE = 6;

/**
 * Every sequence gets as many lanes as each can have, every lane a run of it. Interleave is 1 to 16. The steps are cut
 * into tiles, so that each of `threads` reads its own without gaps.
 */
export function lanesOf(chaining: Chaining, threads = 1): Lanes {
  const { rows, interleave, tailBiting } = chaining;
  const count = tailBiting ? greatestCommonDivisor(rows, interleave) : Math.min(rows, interleave);
  const each = Math.floor(LANES / count);
  const least = Math.ceil(Math.ceil(rows / count) / each);
  const shares = Math.max(1, Math.min(threads, Math.floor(least / SMALLEST_TILE)));
  const tiles = shares * Math.ceil(least / (shares * LARGEST_TILE));
  const tileSteps = Math.ceil(least / tiles);
  const steps = tiles * tileSteps;
  const rowAt = new Int32Array(LANES * steps).fill(-1);
  for (let sequence = 0; sequence < count; sequence++) {
    const length = tailBiting ? rows / count : Math.ceil((rows - sequence) / interleave);
    for (let i = 0, row = sequence; i < length; i++, row = (row + interleave) % rows) {
      const lane = sequence * each + Math.floor(i / steps);
      rowAt[(i % steps) * LANES + lane] = row;
    }
  }
  return { steps, tileSteps, rowAt };
}

/** [rows]: where each row is. */
export function positionsOf({ rowAt }: Lanes, rows: number): Int32Array {
  const positions = new Int32Array(rows);
  rowAt.forEach((row, position) => {
    if (row >= 0) positions[row] = position;
  });
  return positions;
}

/**
 * [3 + steps][16]: the row at each place of a stream and of its prefix, -1 where there is none. The first vector has
 * the rows before those of the prefix: what they carry is in the prefix.
 */
export function sourceRows({ steps, rowAt }: Lanes, chaining: Chaining): Int32Array {
  const source = new Int32Array(LANES * (1 + PREFIX + steps));
  source.set(rowAt, LANES * (1 + PREFIX));
  for (let lane = 0; lane < LANES; lane++)
    for (let vector = PREFIX, row = rowAt[lane]; vector >= 0; vector--) {
      row = precedingRow(row, chaining);
      source[vector * LANES + lane] = row;
    }
  return source;
}

/**
 * Stored codes as [pairs][2][16], what is before the first step, then [tiles][pairs][tileSteps][16], by the definition;
 * backends are compared with it.
 */
export function lanesOfStored(options: TrellisCodesOptions): Uint8Array {
  const { chaining, lanes, carries } = options;
  const { rows } = chaining;
  const codes = pairedNibbles(options);
  const source = sourceRows(lanes, chaining);
  const pairs = codes.length / rows;
  const out = new Uint8Array(pairs * LANES * (PREFIX + lanes.steps));
  const carry = (group: number, code: number) => carries[group % carries.length]?.[code & 7] ?? 0;
  for (let pair = 0; pair < pairs; pair++) {
    const code = (place: number) => (source[place] < 0 ? 0 : codes[pair * rows + source[place]]);
    for (let i = 0; i < LANES * (PREFIX + lanes.steps); i++) {
      const before = code(i);
      const carried = carry(2 * pair, before & 15) | (carry(2 * pair + 1, before >> 4) << 4);
      const step = Math.floor(i / LANES) - PREFIX;
      out[placeOf(lanes, pairs, pair, step) + (i % LANES)] = code(i + LANES) ^ carried;
    }
  }
  return out;
}

/** Where the codes of a pair of groups are for a step, -2 and -1 being those before the first. */
export function placeOf(
  { tileSteps }: Pick<Lanes, "tileSteps">,
  pairs: number,
  pair: number,
  step: number,
): number {
  if (step < 0) return LANES * (PREFIX * pair + PREFIX + step);
  const tile = Math.floor(step / tileSteps);
  return LANES * (PREFIX * pairs + (tile * pairs + pair) * tileSteps + (step - tile * tileSteps));
}

/** Codes [pairs][rows]: low nibble group 2p, high nibble group 2p + 1. */
export function pairedNibbles({
  stored,
  codeBits,
  streams,
  chaining: { rows },
}: Pick<TrellisCodesOptions, "stored" | "codeBits" | "streams"> & {
  readonly chaining: Pick<Chaining, "rows">;
}): Uint8Array {
  if (codeBits === 4) return stored;
  const stride = stored.length / streams;
  const out = new Uint8Array(Math.ceil(streams / 2) * rows);
  for (let group = 0; group < streams; group++)
    for (let row = 0; row < rows; row++) {
      const at = group * stride + ((3 * row) >> 3);
      const code = ((stored[at] | (stored[at + 1] << 8)) >> ((3 * row) & 7)) & 7;
      out[(group >> 1) * rows + row] |= code << (4 * (group & 1));
    }
  return out;
}

function greatestCommonDivisor(a: number, b: number): number {
  return b === 0 ? a : greatestCommonDivisor(b, a % b);
}
