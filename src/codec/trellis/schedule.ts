/**
 * How the states of a trellis are laid out for the Viterbi kernel (kernels/encode/viterbi.ts), worked out
 * from its maps. With codes of s bits and B = 2^s, a state is the last K codes (K = 2 for s = 4, 3 for
 * s = 3) and a window is a state and the next code n: u = S0[n] ^ S1[newest of state] ^ … ^ SK[oldest].
 *
 * S0, SK and a complement R form a basis of the bytes, so u = S0[b] ^ SK[a] ^ R[e] in exactly one way. The
 * codes that a state keeps when it loses its oldest contribute S0[m] ^ SK[q] ^ R[e]; then b = n ^ m and
 * a = oldest ^ q. States that keep the same codes form a row of B states at positions row * B + b.
 */
import { type CodeBits, stateCodes } from "./code.js";

/** A GF(2)-linear map from windows to bytes: the image of each of the 12 window bits, newest code first. */
export type WindowMap = readonly number[];

export interface Schedule {
  /** [states]: for row j and a, the byte offset (2 * position) of the state that it comes from. */
  readonly source: Uint16Array;
  /** [states]: the newest code of the state at a position. */
  readonly codeAt: Uint8Array;
  /** [states]: where a state is; a state's number has the newest code in its low bits. */
  readonly positionOf: Uint16Array;
  /** [256]: the byte u of the distance at index e * B² + a * B + b. */
  readonly order: Uint8Array;
}

/** Image of code `n` at age `age` (0: the newest code of the window). */
export function imageOf(map: WindowMap, codeBits: CodeBits, age: number, n: number): number {
  let u = 0;
  for (let bit = 0; bit < codeBits; bit++) if ((n >> bit) & 1) u ^= map[age * codeBits + bit];
  return u;
}

/** The maps S0, S1, … as the kernels want them: 16 bytes each, those of impossible codes 0. */
export function mapBytes(map: WindowMap, codeBits: CodeBits): Uint8Array {
  const window = stateCodes(codeBits) + 1;
  const bytes = new Uint8Array(16 * window);
  for (let age = 0; age < window; age++)
    for (let n = 0; n < 1 << codeBits; n++) bytes[16 * age + n] = imageOf(map, codeBits, age, n);
  return bytes;
}

/** Throws RangeError if the map lacks the independence that the layout needs. */
export function createSchedule(map: WindowMap, codeBits: CodeBits): Schedule {
  const branches = 1 << codeBits;
  const ages = stateCodes(codeBits);
  const states = branches ** ages;
  const { order, indexOf } = coordinates(map, codeBits);

  // Rows, one for each choice of the kept codes, ordered by e so that the kernel takes one e after another.
  const kept = Array.from({ length: states / branches }, (_, codes) => {
    let u = 0;
    for (let k = 0; k < ages - 1; k++)
      u ^= imageOf(map, codeBits, k + 1, (codes >> (k * codeBits)) & (branches - 1));
    const index = indexOf[u];
    return { codes, m: index % branches, q: (index >> codeBits) % branches, e: index >> (2 * codeBits) };
  }).sort((x, y) => x.e - y.e || x.codes - y.codes);
  const parts = 256 / branches ** 2;
  if (kept.some(({ e }, row) => e !== Math.floor((row * parts) / kept.length)))
    throw new RangeError("the middle codes of the window must reach all of the complement");

  const positionOf = new Uint16Array(states);
  const codeAt = new Uint8Array(states);
  kept.forEach(({ codes, m }, row) => {
    for (let n = 0; n < branches; n++) {
      const position = row * branches + (n ^ m);
      positionOf[n | (codes << codeBits)] = position;
      codeAt[position] = n;
    }
  });
  const source = new Uint16Array(states);
  kept.forEach(({ codes, q }, row) => {
    for (let a = 0; a < branches; a++)
      source[row * branches + a] = 2 * positionOf[codes | ((a ^ q) << (codeBits * (ages - 1)))];
  });
  return { source, codeAt, positionOf, order };
}

function coordinates(map: WindowMap, codeBits: CodeBits): { order: Uint8Array; indexOf: Uint8Array } {
  const oldest = stateCodes(codeBits);
  const basis = [...map.slice(0, codeBits), ...map.slice(oldest * codeBits)];
  // Before the basis is completed: a dependent one never would be.
  if (!isIndependent(basis))
    throw new RangeError("the newest and oldest codes of the window must be independent");
  for (let unit = 1; basis.length < 8; unit <<= 1) if (isIndependent([...basis, unit])) basis.push(unit);
  const order = new Uint8Array(256);
  const indexOf = new Uint8Array(256);
  for (let index = 0; index < 256; index++) {
    let u = 0;
    for (let bit = 0; bit < 8; bit++) if ((index >> bit) & 1) u ^= basis[bit];
    order[index] = u;
    indexOf[u] = index;
  }
  return { order, indexOf };
}

/** Whether bytes are linearly independent over GF(2). */
function isIndependent(bytes: readonly number[]): boolean {
  const reduced: number[] = [];
  for (const byte of bytes) {
    let rest = byte;
    for (const other of reduced) rest = Math.min(rest, rest ^ other);
    if (rest === 0) return false;
    reduced.push(rest);
  }
  return true;
}
