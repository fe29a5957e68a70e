/**
 * A trellis code: how many bits each code has, how many adjacent columns share one, and how the codes of a
 * column group are chained down the rows. The definitions are in docs/format.md, "Trellis".
 */
import { InputError } from "../../errors.js";

export type CodeBits = 3 | 4;
export const WINDOW_BITS = 12;
export const MAX_WIDTH = 4;

/**
 * Which maps (maps.ts) a matrix has. In "split" ones the code before the newest chooses in B alone and the one before
 * that in A alone, so that a token's kernel takes 29 vector instructions for two codes of 16 rows instead of 37, with
 * errors that are up to 1.2 % larger at 1 bit and the same at 1.5. "joint" ones are those of the first folders.
 */
export type MapSet = "split" | "joint";

export interface TrellisCode {
  readonly codeBits: CodeBits;
  /** Widths (1 to 4 columns) of successive column groups, repeated along the columns. */
  readonly widths: readonly number[];
  /** Number of interleaved sequences: the predecessor of row r is row r - interleave. */
  readonly interleave: number;
  /** Whether the first rows' predecessors are the last rows (cyclic) or code 0. */
  readonly tailBiting: boolean;
  readonly maps: MapSet;
}

/** The codes before the newest in a window: 2 of 4 bits or 3 of 3 bits. */
export function stateCodes(codeBits: CodeBits): number {
  return WINDOW_BITS / codeBits - 1;
}

/**
 * Mean squared errors are in maps.ts. Codes of mixed widths (1.6, 2.4, 2.67) are for when one matrix must have
 * that size: giving some matrices the next lower and some the next higher rate of the others loses less.
 */
export const RATES = [1, 1.33, 1.5, 1.6, 2, 2.4, 2.67, 3, 4] as const;
/** Nominal bits a weight. */
export type Rate = (typeof RATES)[number];

const CODES: Readonly<Record<Rate, { readonly codeBits: CodeBits; readonly widths: readonly number[] }>> = {
  1: { codeBits: 4, widths: [4] },
  1.33: { codeBits: 4, widths: [3] },
  1.5: { codeBits: 3, widths: [2] },
  1.6: { codeBits: 4, widths: [3, 2] },
  2: { codeBits: 4, widths: [2] },
  2.4: { codeBits: 4, widths: [2, 2, 1] },
  2.67: { codeBits: 4, widths: [2, 1] },
  3: { codeBits: 3, widths: [1] },
  4: { codeBits: 4, widths: [1] },
};

/** The code of a named rate. */
export function codeForRate(rate: Rate): { readonly codeBits: CodeBits; readonly widths: readonly number[] } {
  const code = CODES[rate];
  if (!code) throw new InputError(`no trellis code has ${rate} bits a weight; there are ${RATES.join(", ")}`);
  return code;
}

/** Bits a weight of the codes alone, for wide matrices. */
export function bitsPerWeight(code: Pick<TrellisCode, "codeBits" | "widths">): number {
  return (code.codeBits * code.widths.length) / code.widths.reduce((a, b) => a + b, 0);
}

export interface ColumnGroup {
  readonly start: number;
  /** Columns in the group: its nominal width, or fewer in the last group. */
  readonly columns: number;
  /** The width whose map and tables the group uses. */
  readonly width: number;
}

export function columnGroups(widths: readonly number[], columns: number): ColumnGroup[] {
  const groups: ColumnGroup[] = [];
  for (let start = 0; start < columns; ) {
    const width = widths[groups.length % widths.length];
    groups.push({ start, columns: Math.min(width, columns - start), width });
    start += width;
  }
  return groups;
}

export function distinctWidths(widths: readonly number[]): number[] {
  return [...new Set(widths)].sort((a, b) => a - b);
}

/** Number of sequences of a column group, and rows in each when tail-biting. */
export function cycles(rows: number, interleave: number): { count: number; length: number } {
  let a = rows;
  let b = interleave;
  while (b !== 0) [a, b] = [b, a % b];
  return { count: a, length: rows / a };
}
