/**
 * Codes of 3 bits as codes of 4, for the kernels. In memory a code has a nibble either way, and its fourth bit
 * can carry a part of the code before: with N[r] = n[r] ^ T(n[r - S]) for a suitable GF(2)-linear T, the window
 * of four codes of 3 bits is one of three nibbles, u[r] = S0[N[r]] ^ S1[N[r - S]] ^ S2[N[r - 2S]], one look-up
 * less for every weight group, and S0 stays n | n << 4, which costs none.
 */
import { type CodeBits, type MapSet, stateCodes } from "./code.js";
import { windowMap } from "./maps.js";
import type { WindowMap } from "./schedule.js";

export interface NibbleCode {
  /** [2][16]: S1, S2. */
  readonly maps: Uint8Array;
  /** [8], T: what a code contributes to the nibble of the row after it; null where codes have 4 bits. */
  readonly carry: Uint8Array | null;
}

const known = new Map<string, NibbleCode>();

/** `nibbleCode` of one of the format's maps, worked out once. */
export function knownNibbleCode(codeBits: CodeBits, width: number, set: MapSet): NibbleCode {
  const key = `${set}:${codeBits}:${width}`;
  const found = known.get(key) ?? nibbleCode(codeBits, windowMap(codeBits, width, set), set);
  known.set(key, found);
  return found;
}

/** Bits that S1 and S2 may have: of split maps, those of B and those of A. */
const IMAGE_BITS = { joint: [0xff, 0xff], split: [0xf0, 0x0f] } as const;

/**
 * The map of a code, its S0 n | n << 4, on nibbles. RangeError where there is none (every map of the format
 * has one, and split ones one in which each of S1 and S2 has a nibble only).
 */
export function nibbleCode(codeBits: CodeBits, map: WindowMap, set: MapSet): NibbleCode {
  if (map.slice(0, codeBits).some((image, bit) => image !== 0x11 << bit))
    throw new RangeError("the map of the newest code must be n | n << 4");
  if (codeBits === 4) return { maps: images(map.slice(4)), carry: null };
  // T has 4096 values; each row of the equations between maps has two unknown bits, the images of the fourth
  // bit in S1 and S2, and three equations.
  for (let index = 0; index < 4096; index++) {
    const carry = [index & 15, (index >> 4) & 15, index >> 8];
    const columns = solve(map, carry, set);
    if (columns) return { maps: images(columns), carry: combinations(carry) };
  }
  throw new RangeError("the map has no form with codes of 4 bits");
}

/** S1 and S2 as images of 2 x 4 bits, for which N gives the same u as the map gives on n; or null. */
function solve(map: WindowMap, carry: readonly number[], set: MapSet): number[] | null {
  // Age 1: S1 on the first three bits, plus S0 T, is the map's; age 2: S2 plus S1 T; age 3: S2 T.
  const first = carry.map((t, j) => map[3 + j] ^ (t | (t << 4)));
  let fourth1 = 0;
  let fourth2 = 0;
  const second = [0, 0, 0];
  for (let row = 0; row < 8; row++) {
    const bit = (value: number) => (value >> row) & 1;
    // Bits of the eight images in this row, the fourth ones as guessed.
    const rowOf1 = (guess: number) =>
      first.reduce((bits, image, j) => bits | (bit(image) << j), (guess & 1) << 3);
    const rowOf2 = (guess: number, s1: number) =>
      carry.reduce((bits, t, j) => bits | ((bit(map[6 + j]) ^ parity(s1 & t)) << j), (guess >> 1) << 3);
    const [allowed1, allowed2] = IMAGE_BITS[set].map(bit);
    const fits = [0, 1, 2, 3].find((guess) => {
      const s1 = rowOf1(guess);
      const s2 = rowOf2(guess, s1);
      if ((s1 && !allowed1) || (s2 && !allowed2)) return false;
      return carry.every((t, j) => parity(s2 & t) === bit(map[9 + j]));
    });
    if (fits === undefined) return null;
    const s1 = rowOf1(fits);
    const s2 = rowOf2(fits, s1);
    fourth1 |= (s1 >> 3) << row;
    fourth2 |= (s2 >> 3) << row;
    second.forEach((_, j) => {
      second[j] |= ((s2 >> j) & 1) << row;
    });
  }
  return [...first, fourth1, ...second, fourth2];
}

/** Two maps of a nibble from the images of its bits. */
function images(columns: readonly number[]): Uint8Array {
  if (columns.length !== 4 * stateCodes(4)) throw new RangeError("a map has twelve bits");
  return Uint8Array.of(...combinations(columns.slice(0, 4)), ...combinations(columns.slice(4)));
}

function combinations(columns: readonly number[]): Uint8Array {
  return Uint8Array.from({ length: 1 << columns.length }, (_, n) =>
    columns.reduce((sum, column, bit) => ((n >> bit) & 1 ? sum ^ column : sum), 0),
  );
}

function parity(bits: number): number {
  const half = bits ^ (bits >> 2);
  return (half ^ (half >> 1)) & 1;
}
