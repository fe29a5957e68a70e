/** Where to look next for the size that gives a divergence: its logarithm is nearly a line over bits. */

/** A size that was tried, as mean bits a weight, and the mean divergence it gave, in nats a token. */
export interface Try {
  readonly bits: number;
  readonly divergence: number;
}

/**
 * Nats of ln(divergence) that one more bit a weight takes away, before two tries tell. SmolLM2-135M: 1.3 from
 * 1.6 to 2 bits, 0.9 from 2 to 2.67; pocket-stories 1.8, 1.7, and 1.1 from 2.67 to 4.
 */
const SLOPE = 1.3;
const FIRST_BITS = 2.5;
/** A try that is below what is wanted by less than this share is the one looked for. */
const NEAR = 0.1;
/** Sizes closer than this are one: 0.5 % of a 10x folder. */
const STEP = 0.008;
const MOST_TRIES = 6;

/**
 * Bits of the next try, or null when one of the tries is good enough or no other can be better. With the largest
 * divergence above and the smallest below what is wanted it lies between their sizes.
 */
export function nextBits(
  tries: readonly Try[],
  wanted: number,
  { least, most }: { readonly least: number; readonly most: number },
): number | null {
  const clamp = (bits: number) => Math.min(Math.max(bits, least), most);
  if (tries.length === 0) return clamp(FIRST_BITS);
  const above = tries.filter((t) => t.divergence > wanted).sort((a, b) => b.bits - a.bits)[0];
  const below = tries.filter((t) => t.divergence <= wanted).sort((a, b) => a.bits - b.bits)[0];
  if (below && below.divergence >= (1 - NEAR) * wanted) return null;
  if (below && tries.length >= MOST_TRIES) return null;
  // A little below what is wanted, so that what comes out is on the right side.
  const aim = Math.log((1 - NEAR / 2) * wanted);
  const fall = slope(above, below, tries);
  const from = below ?? above;
  let bits = clamp(from.bits + (Math.log(from.divergence) - aim) / fall);
  if (above && below) {
    const play = (below.bits - above.bits) / 10;
    bits = Math.min(Math.max(bits, above.bits + play), below.bits - play);
  }
  return tries.some((t) => Math.abs(t.bits - bits) < STEP) ? null : bits;
}

function slope(above: Try | undefined, below: Try | undefined, tries: readonly Try[]): number {
  const pair = above && below ? [above, below] : tries.slice(-2);
  if (pair.length < 2) return SLOPE;
  const [a, b] = pair;
  const measured = (Math.log(a.divergence) - Math.log(b.divergence)) / (b.bits - a.bits);
  // Neighbours may be out of order: measurements have noise.
  return measured > SLOPE / 4 && measured < SLOPE * 4 ? measured : SLOPE;
}
