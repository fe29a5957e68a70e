/**
 * The Backend interface: everything the transformer asks of a machine. All tensors are f32, row-major, in
 * buffers owned by the backend. Calls are issued in order and may run later (a GPU queue): only `read`
 * waits for results. Implementations: reference/ (plain TypeScript, the definition of each operation),
 * wasm/ (AssemblyScript SIMD, worker threads on shared memory). One conformance suite runs over all.
 *
 * Not here: reading files, codecs' encoders, sampling.
 */

import type { PackedFormat } from "./kv-format.js";
import type { Chaining, Lanes } from "./trellis-lanes.js";

/** f32 storage owned by a backend. `length` counts elements. */
export interface Buffer {
  readonly length: number;
}

/** Bytes owned by a backend: packed codes. */
export interface ByteBuffer {
  readonly byteLength: number;
}

export interface MatmulOptions {
  /** [tokens, inputs] */
  readonly x: Buffer;
  /** [outputs, inputs] */
  readonly weight: Buffer;
  /** [outputs] added to each row, or absent. */
  readonly bias?: Buffer | undefined;
  /** [tokens, outputs], overwritten. */
  readonly y: Buffer;
  readonly tokens: number;
  readonly inputs: number;
  readonly outputs: number;
}

export interface RopeOptions {
  /** [tokens, heads * headSize], rotated in place, rotate-half convention (element i pairs with i + headSize / 2). */
  readonly x: Buffer;
  /** [positions, headSize / 2] cosines and sines. */
  readonly cosines: Buffer;
  readonly sines: Buffer;
  readonly tokens: number;
  /** Position of the first token. */
  readonly position: number;
  readonly heads: number;
  readonly headSize: number;
}

export interface AttentionOptions {
  /** [tokens, heads * headSize] */
  readonly query: Buffer;
  /**
   * Keys and values of positions 0 .. position + tokens - 1, [capacity, kvHeads * headSize]; packed ones as kv-format.ts
   * has them, as many bytes of both.
   */
  readonly keys: Buffer | ByteBuffer;
  readonly values: Buffer | ByteBuffer;
  /** The format of keys and values in ByteBuffers; absent for f32 Buffers. */
  readonly packed?: PackedFormat | undefined;
  /** [tokens, heads * headSize], overwritten. */
  readonly y: Buffer;
  readonly tokens: number;
  /** Position of the first query token; token t attends positions max(0, position + t - window + 1) .. position + t. */
  readonly position: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  /** Multiplies q.k, usually 1 / sqrt(headSize). */
  readonly scale: number;
  /** Sliding window in tokens, or null for all of the past. */
  readonly window: number | null;
}

/** One token of each of several sequences; row i of query, key, value and y is of sequence i. */
export interface AttendEachOptions extends Pick<AttentionOptions, "heads" | "kvHeads" | "headSize"> {
  /** [sequences, heads * headSize] */
  readonly query: Buffer;
  /** [sequences, kvHeads * headSize] */
  readonly key: Buffer;
  readonly value: Buffer;
  /** [sequences, heads * headSize], overwritten. */
  readonly y: Buffer;
  /** The caches of distinct sequences, each with the position of its token, as in `AttentionOptions`. */
  readonly sequences: readonly Pick<AttentionOptions, "keys" | "values" | "packed" | "position">[];
  readonly scale: number;
  readonly window: number | null;
}

/** Keys or values of successive tokens, in f32 and in a packed cache. */
export interface PackedRowsOptions {
  /** [from + tokens, kvHeads * headSize] */
  readonly x: Buffer;
  /** Row of x of the first token. Default 0. */
  readonly from?: number | undefined;
  /** [kvHeads, capacity] rows in `format` (kv-format.ts). */
  readonly cache: ByteBuffer;
  readonly format: PackedFormat;
  readonly tokens: number;
  /** Of the first token in `cache`. */
  readonly position: number;
  readonly kvHeads: number;
  readonly headSize: number;
}

/**
 * One matrix coded by the trellis codec, as the kernels want it. Weight (row r, column c in group g, element
 * v) = scales[r] * (A[w][u & 15][v] + B[w][u >> 4][v]) in the rotated basis, where w is the group's width and
 * u = n | n << 4 ^ S1[n'] ^ S2[n''] with n, n', n'' the row's code and the two before it in its sequence.
 */
export interface TrellisWeights {
  readonly rows: number;
  readonly columns: number;
  /** Widths of successive column groups, repeated; the last group may be cut short by `columns`. */
  readonly widths: readonly number[];
  /** Vectors of 16 rows (trellis-lanes.ts), cut into tiles of `tileSteps`. */
  readonly steps: number;
  readonly tileSteps: number;
  /**
   * One byte for a pair of groups: low nibble group 2p, high nibble group 2p + 1. [pairs][2][16], the codes before
   * those of the first step, then [tiles][pairs][tileSteps][16]. A row's codes follow those of its lane's step before.
   */
  readonly codes: ByteBuffer;
  /** Int32 [steps * 16]: the row at each position of a stream, -1 where there is none. */
  readonly rowAt: ByteBuffer;
  /** [rows]: the position of each row. */
  readonly positions: Int32Array;
  /** For each distinct width ascending: A [16][width] then B [16][width]. */
  readonly tables: Buffer;
  /** [rows] */
  readonly scales: Buffer;
  /** For each distinct width ascending: S1 and S2, 16 bytes each. */
  readonly maps: ByteBuffer;
}

/** The stored codes of a trellis-coded matrix, to be brought into the kernels' order. */
export interface TrellisCodesOptions {
  /** Codes of 4 bits: [pairs of groups][rows] bytes. Of 3 bits: [groups][3 * ceil(rows / 8)], a bit stream each. */
  readonly stored: Uint8Array;
  readonly codeBits: 3 | 4;
  /** The first number of that shape. */
  readonly streams: number;
  /** By group, repeated: [8], what a code adds to the nibble of the row after it; null for nothing. */
  readonly carries: readonly (Uint8Array | null)[];
  readonly chaining: Chaining;
  readonly lanes: Lanes;
}

/** The codec's rotation: signs [columns] of ±1, q an orthogonal m x m matrix (`Backend.rotate`). */
export interface Rotation {
  readonly signs: Buffer;
  readonly q: Buffer;
  readonly m: number;
}

export interface TokenProduct {
  readonly weight: TrellisWeights;
  /** [rows], added, or absent. */
  readonly bias?: Buffer | undefined;
  readonly y: Buffer;
  /** Where in y the product goes; default 0. */
  readonly start?: number | undefined;
}

/** Products of one token's activations with coded matrices that share their input and its rotation. */
export interface TokenProductsOptions {
  /** [columns] */
  readonly x: Buffer;
  /** The input is the RMSNorm of x. */
  readonly norm?: { readonly weight: Buffer; readonly epsilon: number } | undefined;
  /** The input is silu(x) * up; not with `norm`. */
  readonly up?: Buffer | undefined;
  readonly rotation: Rotation;
  /** At least one. */
  readonly products: readonly TokenProduct[];
  /** Products are added to their y. */
  readonly accumulate?: boolean | undefined;
}

/** Products made ready once, to be run for each token. Tables of the weights must not change meanwhile. */
export interface TokenProducts {
  run(): void;
  free(): void;
}

export interface Backend {
  readonly name: string;
  readonly threads: number;

  /** Zeroed f32 storage. Throws InputError when memory is exhausted, naming the size. */
  allocate(length: number): Buffer;
  allocateBytes(byteLength: number): ByteBuffer;
  free(buffer: Buffer | ByteBuffer): void;
  write(buffer: Buffer, data: Float32Array, offset?: number): void;
  writeBytes(buffer: ByteBuffer, data: Uint8Array, offset?: number): void;
  /** A copy of `length` elements from `offset`, after all earlier calls have finished. */
  read(buffer: Buffer, offset?: number, length?: number): Promise<Float32Array>;
  /** Fills `target` with the elements from `offset` on, after all earlier calls have finished. */
  readInto(buffer: Buffer, target: Float32Array, offset?: number): Promise<void>;

  /** y = x weightᵀ (+ bias) */
  matmul(options: MatmulOptions): void;
  /** y[t] = table[ids[t]] for a [rows, columns] table. */
  gather(table: Buffer, ids: Int32Array, columns: number, y: Buffer): void;
  /** y = x / sqrt(mean(x²) + epsilon) * weight, by rows of `columns`; x and y may be the same buffer. */
  rmsNorm(x: Buffer, weight: Buffer, y: Buffer, rows: number, columns: number, epsilon: number): void;
  rope(options: RopeOptions): void;
  /** Causal grouped-query attention over a cache. */
  attention(options: AttentionOptions): void;
  /** key and value are stored in the caches at the tokens' positions, then each query attends to its own cache. */
  attendEach(options: AttendEachOptions): void;
  /** cache[position ..] = x, rounded to the format. */
  packRows(options: PackedRowsOptions): void;
  /** x = cache[position ..] */
  unpackRows(options: PackedRowsOptions): void;
  /** gate = silu(gate) * up, elementwise over `length`. */
  siluMultiply(gate: Buffer, up: Buffer, length: number): void;
  /** y += x over `length`. */
  add(y: Buffer, x: Buffer, length: number): void;
  /** Softmax of each row in place. */
  softmax(x: Buffer, rows: number, columns: number): void;
  /** y[yOffset ..] = x[xOffset .. + length] */
  copy(x: Buffer, xOffset: number, y: Buffer, yOffset: number, length: number): void;

  /**
   * The codec's rotation of row vectors: y = x diag(signs) (Q ⊗ H)ᵀ; Q an orthogonal m x m matrix, H the
   * orthonormal Walsh-Hadamard matrix of order `columns / m`. With `inverse`, y = x (Q ⊗ H) diag(signs).
   * x and y may be the same buffer. `signs` [columns] of ±1, `q` [m, m].
   */
  rotate(
    options: Rotation & {
      readonly x: Buffer;
      readonly y: Buffer;
      readonly rows: number;
      readonly columns: number;
      readonly inverse?: boolean;
    },
  ): void;
  /** A new buffer of codes as `TrellisWeights.codes` wants them; the caller frees it. */
  trellisCodes(options: TrellisCodesOptions): ByteBuffer;
  /**
   * y = x weightᵀ for coded weights; x [tokens, columns] is already rotated. Decodes tile by tile. `approximate`:
   * where that is faster in whole numbers of 16 bits, with a relative error below 0.1 %.
   */
  trellisMatmul(x: Buffer, weight: TrellisWeights, y: Buffer, tokens: number, approximate?: boolean): void;
  /**
   * One token's products, approximately where that is faster: wasm/ looks them up in tables of 13 bits, with a
   * relative error of about 0.1 %.
   */
  tokenProducts(options: TokenProductsOptions): TokenProducts;
  /** y[i] = decoded row ids[i] (still rotated), [ids.length, columns]. */
  trellisGather(weight: TrellisWeights, ids: Int32Array, y: Buffer): void;

  close(): Promise<void>;
}
