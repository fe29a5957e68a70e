/**
 * ggml's block formats -> f32, by their definition in ggml (block_q4_0 ... block_q6_K). A row is a sequence of
 * blocks of 32 or 256 weights with shared scales. Scale times quant is exact in f64, and one rounding to f32
 * follows, as in ggml itself. Decoding only: this project has a codec of its own for encoding.
 */
import { bytesToF32, type DType, f16ToNumber } from "../tensor/dtype.js";

interface BlockFormat {
  /** Weights in a block. */
  readonly weights: number;
  /** Bytes of a block. */
  readonly bytes: number;
  /** Writes the block at byte `at` to `out` from element `to`. */
  readonly decode?: (view: DataView, at: number, out: Float32Array, to: number) => void;
}

/** Formats that can be read, by ggml's name. The first three are plain arrays of floats. */
export const BLOCK_FORMATS: ReadonlyMap<string, BlockFormat> = new Map<string, BlockFormat>([
  ["F32", { weights: 1, bytes: 4 }],
  ["F16", { weights: 1, bytes: 2 }],
  ["BF16", { weights: 1, bytes: 2 }],
  ["Q8_0", { weights: 32, bytes: 34, decode: decodeQ8_0 }],
  [
    "Q4_0",
    {
      weights: 32,
      bytes: 18,
      decode: (view, at, out, to) => decode4(view, at + 2, half(view, at), -8, 0, out, to),
    },
  ],
  [
    "Q4_1",
    {
      weights: 32,
      bytes: 20,
      decode: (view, at, out, to) => decode4(view, at + 4, half(view, at), 0, half(view, at + 2), out, to),
    },
  ],
  [
    "Q5_0",
    {
      weights: 32,
      bytes: 22,
      decode: (view, at, out, to) => decode5(view, at + 2, half(view, at), -16, 0, out, to),
    },
  ],
  [
    "Q5_1",
    {
      weights: 32,
      bytes: 24,
      decode: (view, at, out, to) => decode5(view, at + 4, half(view, at), 0, half(view, at + 2), out, to),
    },
  ],
  ["Q4_K", { weights: 256, bytes: 144, decode: decodeQ4_K }],
  ["Q6_K", { weights: 256, bytes: 210, decode: decodeQ6_K }],
]);

/** Decodes `bytes`, a whole number of blocks of `format` (a key of BLOCK_FORMATS), into the start of `out`. */
export function decodeBlocks(bytes: Uint8Array, format: string, out: Float32Array): void {
  const block = BLOCK_FORMATS.get(format);
  if (!block) throw new RangeError(`decodeBlocks: ${format}`);
  const { decode } = block;
  if (!decode) {
    bytesToF32(bytes, format as DType, out);
    return;
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0, to = 0; at < bytes.byteLength; at += block.bytes, to += block.weights)
    decode(view, at, out, to);
}

function half(view: DataView, at: number): number {
  return f16ToNumber(view.getUint16(at, true));
}

/** d (f16), 32 signed bytes. */
function decodeQ8_0(view: DataView, at: number, out: Float32Array, to: number): void {
  const d = half(view, at);
  for (let i = 0; i < 32; i++) out[to + i] = d * view.getInt8(at + 2 + i);
}

/** 16 bytes at `quants`: low nibbles are weights 0 .. 15, high nibbles 16 .. 31; w = d (q + shift) + m. */
function decode4(
  view: DataView,
  quants: number,
  d: number,
  shift: number,
  m: number,
  out: Float32Array,
  to: number,
): void {
  for (let i = 0; i < 16; i++) {
    const q = view.getUint8(quants + i);
    out[to + i] = d * ((q & 15) + shift) + m;
    out[to + 16 + i] = d * ((q >> 4) + shift) + m;
  }
}

/** As decode4, before it 32 bits at `high`: bit i is the fifth bit of weight i. */
function decode5(
  view: DataView,
  high: number,
  d: number,
  shift: number,
  m: number,
  out: Float32Array,
  to: number,
): void {
  const bits = view.getUint32(high, true);
  for (let i = 0; i < 16; i++) {
    const q = view.getUint8(high + 4 + i);
    out[to + i] = d * (((q & 15) | (((bits >>> i) & 1) << 4)) + shift) + m;
    out[to + 16 + i] = d * (((q >> 4) | (((bits >>> (i + 16)) & 1) << 4)) + shift) + m;
  }
}

/**
 * d, dmin (f16), 12 bytes that pack eight 6-bit scales and eight 6-bit minima, 128 bytes of nibbles: 32 bytes
 * hold two groups of 32 weights, the low nibbles first. w = d scale q - dmin minimum.
 */
function decodeQ4_K(view: DataView, at: number, out: Float32Array, to: number): void {
  const d = half(view, at);
  const dmin = half(view, at + 2);
  const packed = (i: number) => view.getUint8(at + 4 + i);
  for (let group = 0; group < 8; group++) {
    // Groups 0 .. 3 have their 6 bits in bytes 0 .. 7; groups 4 .. 7 have 4 bits in bytes 8 .. 11 and 2 above those 6.
    const scale = group < 4 ? packed(group) & 63 : (packed(group + 4) & 15) | ((packed(group - 4) >> 6) << 4);
    const minimum =
      group < 4 ? packed(group + 4) & 63 : (packed(group + 4) >> 4) | ((packed(group) >> 6) << 4);
    const shift = group % 2 === 0 ? 0 : 4;
    const quants = at + 16 + 32 * (group >> 1);
    for (let i = 0; i < 32; i++)
      out[to + 32 * group + i] = d * scale * ((view.getUint8(quants + i) >> shift) & 15) - dmin * minimum;
  }
}

/**
 * 128 bytes of low nibbles, 64 bytes of two high bits, 16 signed scales (one for 16 weights), d (f16).
 * In each half of 128 weights, quarter k takes nibble k >> 1 of byte 32 (k & 1) + i and bits 2k of high byte i.
 */
function decodeQ6_K(view: DataView, at: number, out: Float32Array, to: number): void {
  const d = half(view, at + 208);
  for (let part = 0; part < 2; part++)
    for (let k = 0; k < 4; k++)
      for (let i = 0; i < 32; i++) {
        const low = (view.getUint8(at + 64 * part + 32 * (k & 1) + i) >> (4 * (k >> 1))) & 15;
        const high = (view.getUint8(at + 128 + 32 * part + i) >> (2 * k)) & 3;
        const scale = view.getInt8(at + 192 + 8 * part + 2 * k + (i >> 4));
        out[to + 128 * part + 32 * k + i] = d * scale * ((low | (high << 4)) - 32);
      }
}
