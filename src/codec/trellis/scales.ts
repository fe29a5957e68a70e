/**
 * Row scales in eight bits, on a logarithmic grid between the least and the greatest of a matrix: [4 + rows] bytes,
 * the two ends as little-endian halves, then a code a row. Code 0 is a scale of 0, k = 1 … 255 is
 * least · (greatest / least)^((k - 1) / 254). In SmolLM2-135M, whose rows differ by 1.6 to 24 times in a matrix, a scale
 * is off by 0.05 to 0.36 % (root mean square). Halves would take .8 % more of a file at 10x.
 */
import { f16ToNumber, numberToF16 } from "../../tensor/dtype.js";

/** Bytes before the codes. */
export const SCALE_ENDS = 4;
/** Codes above 0, less one: steps of the grid. */
const STEPS = 254;
/** A smaller scale than this share of the greatest would make the steps coarse (4 %) for all others. */
const RANGE = 2 ** -14;
/** Of half precision. */
const LEAST_HALF = 2 ** -24;
const GREATEST_HALF = 65504;

/** Scales that are not positive are stored as 0, those below 2^-14 of the greatest as that or as 0. */
export function packScales(scales: Float32Array): Uint8Array {
  const bytes = new Uint8Array(SCALE_ENDS + scales.length);
  let [least, greatest] = [GREATEST_HALF, 0];
  for (const scale of scales) if (scale > greatest) greatest = Math.min(scale, GREATEST_HALF);
  if (greatest < LEAST_HALF) return bytes;
  const floor = Math.max(RANGE * greatest, LEAST_HALF);
  for (const scale of scales) if (scale >= floor) least = Math.min(least, scale);
  const ends = [least, greatest].map(numberToF16);
  for (const [i, bits] of ends.entries()) bytes.set([bits & 255, bits >> 8], 2 * i);
  [least, greatest] = ends.map(f16ToNumber);
  const step = Math.log(greatest / least) / STEPS;
  for (const [r, scale] of scales.entries()) {
    if (!(2 * scale >= least)) continue;
    const place = step > 0 ? Math.round(Math.log(scale / least) / step) : 0;
    bytes[SCALE_ENDS + r] = 1 + Math.min(STEPS, Math.max(0, place));
  }
  return bytes;
}

/** The ends where they are not what `packScales` writes, else null. */
export function impossibleEnds(bytes: Uint8Array): string | null {
  const [least, greatest] = endsOf(bytes);
  const none = least === 0 && greatest === 0 && bytes.subarray(SCALE_ENDS).every((code) => code === 0);
  // Written so that NaN fails too.
  return none || (least > 0 && greatest >= least && greatest <= GREATEST_HALF)
    ? null
    : `${least} to ${greatest}`;
}

/** [rows], of bytes whose ends are possible. */
export function unpackScales(bytes: Uint8Array): Float32Array {
  const [least, greatest] = endsOf(bytes);
  const grid = new Float32Array(STEPS + 2);
  if (least > 0) for (let k = 0; k <= STEPS; k++) grid[k + 1] = least * (greatest / least) ** (k / STEPS);
  const scales = new Float32Array(bytes.length - SCALE_ENDS);
  for (let r = 0; r < scales.length; r++) scales[r] = grid[bytes[SCALE_ENDS + r]];
  return scales;
}

function endsOf(bytes: Uint8Array): number[] {
  return [0, 2].map((at) => f16ToNumber(bytes[at] | (bytes[at + 1] << 8)));
}
