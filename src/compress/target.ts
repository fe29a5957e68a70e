/** How small the model shall become: `10x` of its 16-bit bytes, or a mean number of bits a weight. */
import { UsageError } from "../errors.js";

export type Target =
  | { readonly kind: "ratio"; readonly ratio: number }
  | { readonly kind: "bits"; readonly bits: number };

export const DEFAULT_TARGET: Target = { kind: "ratio", ratio: 10 };

/** Parses `--target 10x`. */
export function parseTarget(text: string): Target {
  const match = /^(\d+(?:\.\d+)?)x$/.exec(text.trim());
  const ratio = match ? Number(match[1]) : Number.NaN;
  if (!(ratio > 1 && ratio <= 16)) {
    throw new UsageError(`--target ${text}: expected a ratio between 1x and 16x, such as 10x`);
  }
  return { kind: "ratio", ratio };
}

/** Parses `--bits 2`. */
export function parseBits(text: string): Target {
  const bits = text.trim() === "" ? Number.NaN : Number(text);
  if (!(bits >= 1 && bits <= 16)) {
    throw new UsageError(`--bits ${text}: expected a number of bits a weight between 1 and 16, such as 2`);
  }
  return { kind: "bits", bits };
}

/** Bits that a weight has in the mean, everything counted. */
export function targetBits(target: Target): number {
  return target.kind === "ratio" ? 16 / target.ratio : target.bits;
}

/** The largest number of bytes that all weight files together may have. */
export function targetBytes(target: Target, bytes16: number): number {
  return target.kind === "ratio" ? bytes16 / target.ratio : (bytes16 * target.bits) / 16;
}
