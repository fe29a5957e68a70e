/**
 * Reading a matrix coded by the method "meta": bounds, and the decoder.
 *
 * Decoding, exactly: sub-vector i takes its codebook entry codes[i]; the entries of the whole matrix pass
 * through the decoder's blocks (network.ts), each block's RLN taking mean and variance anew from its own
 * input, group by group: those follow from codes, codebook and decoder, so they are not stored. The output y
 * is scaled back, w = mean + y / inverse, by the stored statistics of the sub-vector's group. All of it in
 * double precision with + - * / and square root only, from the stored half-precision numbers.
 */
import type { Backend } from "../../compute/backend.js";
import { DenseLinear } from "../../compute/linear.js";
import { CorruptFileError } from "../../errors.js";
import { bytesToF32, DTYPE_BYTES, type DType } from "../../tensor/dtype.js";
import { packedBytes, unpackBits } from "../bits.js";
import type { CodedMatrix } from "../coded.js";
import { groupSubVectors } from "./groups.js";
import { forward, fromStored } from "./network.js";
import { decoderLength, type MetaShape, type Rln, shapeProblem, statisticsCount } from "./options.js";
import { pairIndices } from "./statistics.js";

/** The stored tensors of a shape: codes are a bit stream (bits.ts), log2(k) bits an index, row by row. */
export function metaTensors(
  rows: number,
  columns: number,
  shape: MetaShape,
): Readonly<Record<"codes" | "codebook" | "decoder" | "statistics", { dtype: DType; shape: number[] }>> {
  const codes = packedBytes((rows * columns) / shape.d, Math.log2(shape.k));
  return {
    codes: { dtype: "U8", shape: [codes] },
    codebook: { dtype: "F16", shape: [shape.k, shape.d] },
    // Block by block: RLN weight [d], bias [d] (absent with rln "off"), W1 [hidden, d], b1 [hidden], W2 [d, hidden], b2 [d].
    decoder: { dtype: "F16", shape: [decoderLength(shape)] },
    // Pairs of mean and 1/sigma, one a group in the order of groups.ts, or one for the matrix.
    statistics: { dtype: "F16", shape: [statisticsCount(rows, columns, shape), 2] },
  };
}

/**
 * Checks a coded matrix from outside: parameters, the exact set of tensors, their types and sizes, finite
 * numbers. Returns its shape. Throws CorruptFileError; `name` is the layer's, for the message.
 */
export function validateMeta(coded: CodedMatrix, name = "matrix"): MetaShape {
  const fail = (problem: string): never => {
    throw new CorruptFileError(`${name}: ${problem}; the file is damaged, get it again`);
  };
  if (coded.method !== "meta") fail(`is coded by "${coded.method}", not "meta"`);
  const number = (key: string): number => {
    const value = coded.parameters[key];
    return typeof value === "number" ? value : Number.NaN;
  };
  const shape: MetaShape = {
    d: number("d"),
    k: number("k"),
    hidden: number("hidden"),
    blocks: number("blocks"),
    rln: coded.parameters["rln"] as Rln,
    groupScale: coded.parameters["groupScale"] as boolean,
  };
  const problem = shapeProblem(coded.rows, coded.columns, shape);
  if (problem) fail(problem);
  const expected = Object.entries(metaTensors(coded.rows, coded.columns, shape));
  if (coded.tensors.size !== expected.length)
    fail(`has ${coded.tensors.size} tensors, not ${expected.length}`);
  for (const [suffix, { dtype, shape: dimensions }] of expected) {
    const tensor = coded.tensors.get(suffix);
    if (!tensor) return fail(`tensor "${suffix}" is missing`);
    const elements = dimensions.reduce((a, b) => a * b, 1);
    if (tensor.dtype !== dtype || tensor.shape.join() !== dimensions.join())
      fail(`tensor "${suffix}" is ${tensor.dtype} [${tensor.shape}], not ${dtype} [${dimensions}]`);
    if (tensor.data.byteLength !== elements * DTYPE_BYTES[dtype])
      fail(`tensor "${suffix}" has ${tensor.data.byteLength} bytes, not ${elements * DTYPE_BYTES[dtype]}`);
    if (dtype === "F16" && !isFinite16(tensor.data))
      fail(`tensor "${suffix}" has numbers that are not finite`);
  }
  const statistics = bytesToF32(coded.tensors.get("statistics")!.data, "F16");
  for (let i = 1; i < statistics.length; i += 2)
    if (!(statistics[i] > 0)) fail('tensor "statistics" has a 1/sigma that is not positive');
  return shape;
}

function isFinite16(data: Uint8Array): boolean {
  for (let i = 1; i < data.length; i += 2) if ((data[i] & 0x7c) === 0x7c) return false;
  return true;
}

/** The weights [rows, columns], finite. Validates first; throws CorruptFileError. */
export function decodeMeta(coded: CodedMatrix, name = "matrix"): Float32Array {
  const shape = validateMeta(coded, name);
  const { d, k } = shape;
  const { rows, columns, tensors } = coded;
  const count = (rows * columns) / d;
  const numbers = (suffix: string) => bytesToF32(tensors.get(suffix)!.data, "F16");
  const codebook = numbers("codebook");
  const decoder = fromStored(shape, numbers("decoder"));
  const statistics = numbers("statistics");
  const codes = unpackBits(tensors.get("codes")!.data, Math.log2(k), count);
  const groups = groupSubVectors(rows, columns / d, shape.rln);
  const pairOf = pairIndices(shape, groups);
  const out = new Float32Array(rows * columns);
  const write = (entries: Float64Array, position: (vector: number) => number) => {
    for (let vector = 0; vector < count; vector++) {
      const mean = statistics[2 * pairOf[vector]];
      const inverse = statistics[2 * pairOf[vector] + 1];
      const from = position(vector) * d;
      for (let i = 0; i < d; i++) out[vector * d + i] = mean + entries[from + i] / inverse;
    }
  };
  if (shape.rln === "off") {
    // Without RLN an entry decodes to the same weights everywhere: k passes instead of one a sub-vector.
    const table = Float64Array.from(codebook);
    forward(shape, decoder, table, groups);
    write(table, (vector) => codes[vector]);
  } else {
    const h = new Float64Array(rows * columns);
    for (let vector = 0; vector < count; vector++)
      for (let i = 0; i < d; i++) h[vector * d + i] = codebook[codes[vector] * d + i];
    forward(shape, decoder, h, groups);
    write(h, (vector) => vector);
  }
  // Finite numbers can still overflow on their way through a network that nobody trained.
  if (!out.every(Number.isFinite))
    throw new CorruptFileError(
      `${name}: decodes to weights that are not finite; the file is damaged, get it again`,
    );
  return out;
}

/** A Linear of the coded matrix on a backend: decoded once, here; from then on dense. `bias` [rows] or absent. */
export function metaLinear(
  backend: Backend,
  coded: CodedMatrix,
  bias?: Float32Array | undefined,
  name?: string,
): DenseLinear {
  return new DenseLinear(backend, coded.rows, coded.columns, decodeMeta(coded, name), bias);
}
