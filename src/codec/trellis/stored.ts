/**
 * The stored form of a trellis-coded matrix [rows, columns], method "trellis".
 *
 * parameters
 *   codeBits      3 or 4
 *   widths        1 to 16 group widths of 1 to 4 columns, repeated along the columns; the last group is cut
 *                 where the columns end (its codewords keep their first elements)
 *   interleave    1 to 16: row r follows row r - interleave
 *   tailBiting    whether row r < interleave follows row (r - interleave) mod rows, or code 0 throughout
 *   rotationSeed  unsigned 32-bit integer: the signs of the rotation (rotation.ts)
 *   maps          "split"; absent from the first folders, whose maps are the joint ones
 *
 * tensors
 *   codes   U8. 4-bit codes: [ceil(groups / 2), rows], a byte holds group 2p in its low and group 2p + 1 in
 *           its high nibble (0 if there is no such group). 3-bit codes: [groups, 3 * ceil(rows / 8)], a
 *           little-endian bit stream down the rows of each group, 8 codes in 3 bytes, padded with 0.
 *   tables  F16, [sum of 32 * width]: for each distinct width, ascending, A [16][width] then B [16][width]
 *   scales  U8, [4 + rows]: scales.ts; or F16, [rows], as the first folders have them
 *
 * A weight in the rotated basis is scales[r] * (A[u & 15][v] + B[u >> 4][v]), u = S0[n[r]] ^ S1[n[r - S]] ^ …
 * by the maps of maps.ts; the matrix itself is that times the inverse rotation on its input side.
 */
import { pairedNibbles } from "../../compute/trellis-lanes.js";
import { CorruptFileError } from "../../errors.js";
import { bytesToF32, DTYPE_BYTES, type DType, f32ToBytes } from "../../tensor/dtype.js";
import { packBits } from "../bits.js";
import type { CodedMatrix, StoredTensor } from "../coded.js";
import { MAX_ODD_PART, oddPart } from "../rotation.js";
import { type CodeBits, distinctWidths, MAX_WIDTH, type TrellisCode } from "./code.js";
import { impossibleEnds, packScales, SCALE_ENDS, unpackScales } from "./scales.js";

const MAX_PATTERN = 16;
const MAX_INTERLEAVE = 16;
/** More than any matrix of a model, and small enough that sizes of all tensors stay exact integers. */
const MAX_SIDE = 2 ** 24;

/** Type and shape of every stored tensor of a matrix. */
export function trellisTensors(
  rows: number,
  columns: number,
  { codeBits, widths }: Pick<TrellisCode, "codeBits" | "widths">,
): Readonly<Record<"codes" | "tables" | "scales", { dtype: "U8" | "F16"; shape: number[] }>> {
  const pattern = widths.reduce((a, b) => a + b, 0);
  let groups = Math.floor(columns / pattern) * widths.length;
  for (let rest = columns % pattern, i = 0; rest > 0; rest -= widths[i++]) groups++;
  const shape = codeBits === 4 ? [Math.ceil(groups / 2), rows] : [groups, 3 * Math.ceil(rows / 8)];
  return {
    codes: { dtype: "U8", shape },
    tables: { dtype: "F16", shape: [distinctWidths(widths).reduce((sum, width) => sum + 32 * width, 0)] },
    scales: { dtype: "U8", shape: [SCALE_ENDS + rows] },
  };
}

export interface TrellisParts {
  readonly rows: number;
  readonly columns: number;
  readonly code: TrellisCode;
  readonly seed: number;
  /** [groups][rows], one code a byte. */
  readonly codes: Uint8Array;
  /** For each distinct width ascending: A [16][width], B [16][width]. */
  readonly tables: readonly Float32Array[];
  /** [rows], rounded to eight bits. */
  readonly scales: Float32Array;
}

export function packTrellis({ rows, columns, code, seed, codes, tables, scales }: TrellisParts): CodedMatrix {
  const groups = codes.length / rows;
  const shapes = trellisTensors(rows, columns, code);
  const packed = new Uint8Array(shapes.codes.shape[0] * shapes.codes.shape[1]);
  for (let g = 0; g < groups; g++) {
    const column = codes.subarray(g * rows, (g + 1) * rows);
    if (code.codeBits === 3) packed.set(packBits(column, 3), g * shapes.codes.shape[1]);
    else for (let r = 0; r < rows; r++) packed[(g >> 1) * rows + r] |= column[r] << (4 * (g & 1));
  }
  const all = new Float32Array(tables.reduce((sum, table) => sum + table.length, 0));
  let at = 0;
  for (const table of tables) {
    all.set(table, at);
    at += table.length;
  }
  const data = { codes: packed, tables: f32ToBytes(all, "F16"), scales: packScales(scales) };
  return {
    method: "trellis",
    rows,
    columns,
    parameters: {
      codeBits: code.codeBits,
      widths: [...code.widths],
      interleave: code.interleave,
      tailBiting: code.tailBiting,
      rotationSeed: seed,
      ...(code.maps === "split" && { maps: code.maps }),
    },
    tensors: new Map<string, StoredTensor>(
      (["codes", "tables", "scales"] as const).map((suffix) => [
        suffix,
        { ...shapes[suffix], data: data[suffix] },
      ]),
    ),
  };
}

export interface TrellisShape {
  readonly code: TrellisCode;
  readonly seed: number;
}

/**
 * Checks a coded matrix from outside: parameters, the exact set of tensors, their types and sizes, finite
 * numbers. Throws CorruptFileError; `name` is the matrix's, for the message.
 */
export function validateTrellis(coded: CodedMatrix, name = "matrix"): TrellisShape {
  const fail = (problem: string): never => {
    throw new CorruptFileError(`${name}: ${problem}; the file is damaged, get it again`);
  };
  const { rows, columns, parameters } = coded;
  const whole = (value: unknown, from: number, to: number) =>
    typeof value === "number" && Number.isInteger(value) && value >= from && value <= to;
  if (coded.method !== "trellis") fail(`is coded by "${coded.method}", not "trellis"`);
  if (!whole(rows, 1, MAX_SIDE) || !whole(columns, 1, MAX_SIDE))
    fail(`a coded matrix cannot be ${rows} x ${columns}`);
  if (oddPart(columns) > MAX_ODD_PART) fail(`${columns} columns cannot be rotated`);
  const { codeBits, widths, interleave, tailBiting, rotationSeed, maps } = parameters;
  if (codeBits !== 3 && codeBits !== 4) fail(`codeBits must be 3 or 4, not ${JSON.stringify(codeBits)}`);
  if (
    !Array.isArray(widths) ||
    !whole(widths.length, 1, MAX_PATTERN) ||
    !widths.every((width) => whole(width, 1, MAX_WIDTH))
  )
    fail(`widths must be 1 to ${MAX_PATTERN} numbers from 1 to ${MAX_WIDTH}`);
  if (!whole(interleave, 1, MAX_INTERLEAVE)) fail(`interleave must be 1 to ${MAX_INTERLEAVE}`);
  if (typeof tailBiting !== "boolean") fail("tailBiting must be true or false");
  if (!whole(rotationSeed, 0, 2 ** 32 - 1)) fail("rotationSeed must be an unsigned 32-bit integer");
  if (maps !== undefined && maps !== "split") fail(`maps must be "split", not ${JSON.stringify(maps)}`);
  const code: TrellisCode = {
    codeBits: codeBits as CodeBits,
    widths: widths as number[],
    interleave: interleave as number,
    tailBiting: tailBiting as boolean,
    maps: maps === "split" ? maps : "joint",
  };
  const tensors = trellisTensors(rows, columns, code);
  const scales = coded.tensors.get("scales");
  const halves = scales?.dtype === "F16" && { scales: { dtype: "F16", shape: [rows] } };
  const expected = Object.entries({ ...tensors, ...halves });
  if (coded.tensors.size !== expected.length)
    fail(`has ${coded.tensors.size} tensors, not ${expected.length}`);
  for (const [suffix, { dtype, shape }] of expected) {
    const tensor = coded.tensors.get(suffix);
    if (!tensor) return fail(`tensor "${suffix}" is missing`);
    const bytes = shape.reduce((a, b) => a * b, DTYPE_BYTES[dtype as DType]);
    if (tensor.dtype !== dtype || tensor.shape.join() !== shape.join())
      fail(`tensor "${suffix}" is ${tensor.dtype} [${tensor.shape}], not ${dtype} [${shape}]`);
    if (tensor.data.byteLength !== bytes)
      fail(`tensor "${suffix}" has ${tensor.data.byteLength} bytes, not ${bytes}`);
    if (dtype === "F16" && !isFinite16(tensor.data))
      fail(`tensor "${suffix}" has numbers that are not finite`);
  }
  const ends = scales?.dtype === "U8" ? impossibleEnds(scales.data) : null;
  if (ends !== null) fail(`tensor "scales" goes from ${ends}`);
  return { code, seed: rotationSeed as number };
}

function isFinite16(data: Uint8Array): boolean {
  for (let i = 1; i < data.length; i += 2) if ((data[i] & 0x7c) === 0x7c) return false;
  return true;
}

/** Codes as kernels take them, [pairs of groups][rows]: low nibble group 2p, high nibble group 2p + 1. */
export function pairedCodes(coded: CodedMatrix, code: TrellisCode): Uint8Array {
  const { data: stored, shape } = coded.tensors.get("codes")!;
  return pairedNibbles({ stored, codeBits: code.codeBits, streams: shape[0], chaining: coded });
}

/** The tables of a matrix that `validateTrellis` has passed. */
export function storedTables({ tensors }: CodedMatrix): Float32Array {
  return bytesToF32(tensors.get("tables")!.data, "F16");
}

/** Its row scales. */
export function storedScales({ tensors }: CodedMatrix): Float32Array {
  const { dtype, data } = tensors.get("scales")!;
  return dtype === "F16" ? bytesToF32(data, "F16") : unpackScales(data);
}

/** The matrix's tables by width. */
export function tablesByWidth(tables: Float32Array, widths: readonly number[]): Map<number, Float32Array> {
  const out = new Map<number, Float32Array>();
  let at = 0;
  for (const width of distinctWidths(widths)) {
    out.set(width, tables.subarray(at, at + 32 * width));
    at += 32 * width;
  }
  return out;
}
