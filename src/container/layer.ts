/**
 * A coded layer as the folder keeps it: one coded matrix, or a tiered one (the embedding and the head), whose
 * ranges of rows are coded apart at rates of their own. The codecs know nothing of tiers.
 */
import { type CodedMatrix, codedBytes, type StoredTensor } from "../codec/coded.js";
import { InputError } from "../errors.js";
import { DTYPE_BYTES } from "../tensor/dtype.js";

export interface Tier {
  /** Rows [start, end) of the whole matrix; `matrix.rows` is end - start. */
  readonly rows: readonly [start: number, end: number];
  readonly matrix: CodedMatrix;
}

/** Tiers in order of rows, without gaps or overlaps. */
export interface TieredMatrix {
  readonly rows: number;
  readonly columns: number;
  readonly tiers: readonly Tier[];
}

export type CodedLayer = CodedMatrix | TieredMatrix;

export function isTiered(layer: CodedLayer): layer is TieredMatrix {
  return "tiers" in layer;
}

/** The coded matrices of a layer in order of rows, one for a layer without tiers. */
export function matricesOf(layer: CodedLayer): readonly CodedMatrix[] {
  return isTiered(layer) ? layer.tiers.map((tier) => tier.matrix) : [layer];
}

/** Bytes on disk of everything stored for the layer. */
export function layerBytes(layer: CodedLayer): number {
  return matricesOf(layer).reduce((sum, matrix) => sum + codedBytes(matrix), 0);
}

/**
 * Name of a stored tensor: `<layer>.<suffix>`, and `<layer>.<part>.<suffix>` where the layer has tiers.
 * `part` counts tiers from 0 and is null without tiers.
 */
export function storedName(layer: string, part: number | null, suffix: string): string {
  return part === null ? `${layer}.${suffix}` : `${layer}.${part}.${suffix}`;
}

/** Names of layers, tensors and notes: no separators of paths, no spaces, short enough to be a file's name. */
export const NAME_PATTERN = /^[A-Za-z0-9_](?:\.?[A-Za-z0-9_-])*$/;
/** A file's name is at most 255 bytes on every usual file system; the journal adds an ending. */
export const MAX_NAME_LENGTH = 220;
export const SUFFIX_PATTERN = /^[a-z][a-z0-9_]{0,31}$/;

export function isName(value: string): boolean {
  return value.length <= MAX_NAME_LENGTH && NAME_PATTERN.test(value) && value !== "__proto__";
}

/** Refuses a layer that could not be read back: sizes that disagree, gaps between tiers, unusable names. */
export function checkLayer(name: string, layer: CodedLayer): void {
  if (!isName(name)) throw new InputError(`layer name ${JSON.stringify(name)} cannot be stored`);
  if (isTiered(layer)) checkTierRows(name, layer);
  for (const matrix of matricesOf(layer)) {
    if (matrix.columns !== layer.columns)
      throw new InputError(`${name}: a tier has ${matrix.columns} columns, the layer has ${layer.columns}`);
    for (const [suffix, tensor] of matrix.tensors) {
      if (!SUFFIX_PATTERN.test(suffix))
        throw new InputError(`${name}: tensor suffix "${suffix}" is not usable`);
      checkStored(`${name}.${suffix}`, tensor);
    }
  }
}

function checkTierRows(name: string, layer: TieredMatrix): void {
  let next = 0;
  for (const { rows, matrix } of layer.tiers) {
    if (rows[0] !== next || rows[1] <= rows[0] || rows[1] - rows[0] !== matrix.rows)
      throw new InputError(`${name}: tier rows ${rows[0]}..${rows[1]} do not follow row ${next}`);
    next = rows[1];
  }
  if (next !== layer.rows) throw new InputError(`${name}: tiers end at row ${next} of ${layer.rows}`);
}

function checkStored(name: string, { dtype, shape, data }: StoredTensor): void {
  const expected = shape.reduce((product, n) => product * n, DTYPE_BYTES[dtype]);
  if (data.byteLength !== expected)
    throw new InputError(`${name}: ${data.byteLength} bytes for ${dtype} [${shape.join(", ")}]`);
}
