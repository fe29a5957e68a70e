/**
 * What a coded matrix is to everyone outside the codecs: a method, its parameters (JSON, kept in the
 * manifest) and its stored tensors (bytes, kept in safetensors as `<layer>.<suffix>`).
 */
import type { DType } from "../tensor/dtype.js";

export interface StoredTensor {
  readonly dtype: DType;
  readonly shape: readonly number[];
  /** Little-endian, exactly the product of `shape` times the element size. */
  readonly data: Uint8Array;
}

export type JsonValue =
  | string
  | number
  | boolean
  | null
  | readonly JsonValue[]
  | { readonly [key: string]: JsonValue };

export interface CodedMatrix {
  readonly method: "trellis" | "meta";
  /** [rows, columns] = [outputs, inputs] of the matrix that it stands for. */
  readonly rows: number;
  readonly columns: number;
  readonly parameters: { readonly [key: string]: JsonValue };
  /** By suffix: "codes", "tables", "scales", … */
  readonly tensors: ReadonlyMap<string, StoredTensor>;
}

/** Bytes on disk of everything stored for the matrix (safetensors header apart). */
export function codedBytes(matrix: CodedMatrix): number {
  let bytes = 0;
  for (const tensor of matrix.tensors.values()) bytes += tensor.data.byteLength;
  return bytes;
}
