/**
 * Codes of 3 bits as codes of 4, for the kernels. In memory a code has a nibble either way, and its fourth bit
 * can carry a part of the code before: with N[r] = n[r] ^ T(n[r - S]) for a suitable GF(2)-linear T, the window
 * of four codes of 3 bits is one of three nibbles, u[r] = S0[N[r]] ^ S1[N[r - S]] ^ S2[N[r - 2S]], one look-up
 * less for every weight group, and S0 stays n | n << 4, which costs none.
 */
import { type CodeBits, stateCodes } from "./code.js";
import type { WindowMap } from "./schedule.js";

export interface NibbleCode {
  /** [2][16]: S1, S2. */
  readonly maps: Uint8Array;
  /** [8], T: what a code contributes to the nibble of the row after it; null where codes have 4 bits. */
  readonly carry: Uint8Array | null;
}

const known = new Map<WindowMap, NibbleCode>();

/** `nibbleCode` of one of the format's maps, worked out once. */
export function knownNibbleCode(codeBits: CodeBits, map: WindowMap): NibbleCode {
  const found = known.get(map) ?? nibbleCode(codeBits, map);
  known.set(map, found);
  return found;
}

/**
 * The map of a code, its S0 n | n << 4, on nibbles. RangeError where there is none (every map of the format
 * has one).
 */
export function nibbleCode(codeBits: CodeBits, map: WindowMap): NibbleCode {
  if (map.slice(0, codeBits).some((image, bit) => image !== 0x11 << bit))
    throw new RangeError("the map of the newest code must be n | n << 4");
  if (codeBits === 4) return { maps: images(map.slice(4)), carry: null };
  // T has 4096 values; each row of the equations between maps has two unknown bits, the images of the fourth
  // bit in S1 and S2, and three equations.
  for (let index = 0; index < 4096; index++) {
    const carry = [index & 15, (index >> 4) & 15, index >> 8];
    const columns = solve(map, carry);
    if (columns) return { maps: images(columns), carry: combinations(carry) };
  }
  throw new RangeError("the map has no form with codes of 4 bits");
}

/** S1 and S2 as images of 2 x 4 bits, for which N gives the same u as the map gives on n; or null. */
function solve(map: WindowMap, carry: readonly number[]): number[] | null {
  // Age 1: S1 on the first three bits, plus S0 T, is the map's; age 2: S2 plus S1 T; age 3: S2 T.
  const first = carry.map((t, j) => map[3 + j] ^ (t | (t << 4)));
  let fourth1 = 0;
  let fourth2 = 0;
  const second = [0, 0, 0];
  for (let row = 0; row < 8; row++) {
    const bit = (value: number) => (value >> row) & 1;
    const fits = [0, 1, 2, 3].find((guess) => {
      const s1 = first.reduce((bits, image, j) => bits | (bit(image) << j), (guess & 1) << 3);
      const low = carry.reduce((bits, t, j) => bits | ((bit(map[6 + j]) ^ parity(s1 & t)) << j), 0);
      const s2 = low | ((guess >> 1) << 3);
      return carry.every((t, j) => parity(s2 & t) === bit(map[9 + j]));
    });
    if (fits === undefined) return null;
    fourth1 |= (fits & 1) << row;
    fourth2 |= (fits >> 1) << row;
    const s1 = first.reduce((bits, image, j) => bits | (bit(image) << j), (fits & 1) << 3);
    carry.forEach((t, j) => {
      second[j] |= (bit(map[6 + j]) ^ parity(s1 & t)) << row;
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
