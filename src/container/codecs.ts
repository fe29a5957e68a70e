/** The one place that tells coding methods apart: what each method's code is asked for by the rest of the program. */
import type { CodedMatrix } from "../codec/coded.js";
import { validateMeta } from "../codec/meta/decode.js";

/** Checks a coded matrix from outside. Throws CorruptFileError; `name` is the layer's, for the message. */
export function validateMatrix(matrix: CodedMatrix, name: string): void {
  if (matrix.method === "meta") validateMeta(matrix, name);
}
