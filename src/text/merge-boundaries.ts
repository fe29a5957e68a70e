/**
 * Cuts long pre-tokens where byte-pair encoding cannot join the two sides, so that encoding stays linear in
 * the text. SentencePiece-style tokenizers have no pre-tokenizer: the whole text is one "word", and merging
 * 1.3 MB as one takes 20 s instead of 1.5 s (words repeat, which a cache can only use if it sees words).
 *
 * Why the ids do not change: a token that spans the place between characters a and b must first arise from
 * a merge (l, r) whose l ends in a and whose r begins with b. If no merge has that pair, no token ever spans
 * the place, and the merges on either side do not depend on each other.
 */
import type { PreTokenizer } from "./library.js";

/** Shorter pre-tokens are left whole: the library caches those, so there is nothing to win. */
const LONG = 256;

/** `merges` as in tokenizer.json: pairs, or "left right". `inner` is the tokenizer's own pre-tokenizer. */
export function cutAtMergeBoundaries(
  merges: readonly (string | readonly string[])[],
  inner: PreTokenizer | null,
): PreTokenizer {
  const joinable = new Set<number>();
  for (const merge of merges) {
    const [left, right] = typeof merge === "string" ? merge.split(" ", 2) : merge;
    if (left && right) joinable.add(pairKey(lastCodePoint(left), right.codePointAt(0)!));
  }
  return (text, options) => {
    const pieces = inner ? inner(text, options) : [text];
    return pieces.flatMap((piece) => (piece.length < LONG ? piece : cut(piece, joinable)));
  };
}

function cut(text: string, joinable: ReadonlySet<number>): string[] {
  const pieces: string[] = [];
  let start = 0;
  let previous = -1;
  let at = 0;
  for (const character of text) {
    const codePoint = character.codePointAt(0)!;
    if (previous >= 0 && !joinable.has(pairKey(previous, codePoint))) {
      pieces.push(text.slice(start, at));
      start = at;
    }
    previous = codePoint;
    at += character.length;
  }
  pieces.push(text.slice(start));
  return pieces;
}

/** Code points are below 2^21, so a pair of them is exact in a double. */
function pairKey(left: number, right: number): number {
  return left * 0x200000 + right;
}

function lastCodePoint(text: string): number {
  const low = text.charCodeAt(text.length - 1);
  const isPair = low >= 0xdc00 && low <= 0xdfff && text.length > 1;
  return isPair ? text.codePointAt(text.length - 2)! : low;
}
