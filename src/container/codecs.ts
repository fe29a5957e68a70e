/** The one place that tells coding methods apart: what each method's code is asked for by the rest of the program. */
import type { CodedMatrix } from "../codec/coded.js";
import { decodeMeta, metaLinear, validateMeta } from "../codec/meta/decode.js";
import { decodeTrellis } from "../codec/trellis/decode.js";
import { TrellisLinear } from "../codec/trellis/linear.js";
import { validateTrellis } from "../codec/trellis/stored.js";
import type { Backend } from "../compute/backend.js";
import type { Linear } from "../compute/linear.js";

interface Codec {
  /** Checks a coded matrix from outside. Throws CorruptFileError; `name` is the layer's, for the message. */
  validate(matrix: CodedMatrix, name?: string): void;
  /** The weights [rows, columns] that it stands for. */
  decode(matrix: CodedMatrix, name?: string): Float32Array;
  linear(backend: Backend, matrix: CodedMatrix, bias?: Float32Array, name?: string): Linear;
}

const CODECS: Readonly<Record<CodedMatrix["method"], Codec>> = {
  trellis: {
    validate: validateTrellis,
    decode: decodeTrellis,
    linear: (backend, matrix, bias, name) => new TrellisLinear(backend, matrix, bias, name),
  },
  meta: { validate: validateMeta, decode: decodeMeta, linear: metaLinear },
};

export function codecOf({ method }: CodedMatrix): Codec {
  return CODECS[method];
}
