/**
 * A Linear whose weights stay coded: activations are rotated, then multiplied by rows that the backend
 * decodes on the way. Rows that are gathered (an embedding) are rotated back.
 */
import type { Backend, Buffer, ByteBuffer, TrellisWeights } from "../../compute/backend.js";
import type { Linear } from "../../compute/linear.js";
import { grown, upload } from "../../compute/upload.js";
import type { CodedMatrix } from "../coded.js";
import { distinctWidths } from "./code.js";
import { windowMap } from "./maps.js";
import { mapBytes } from "./schedule.js";
import { pairedCodes, storedNumbers, validateTrellis } from "./stored.js";
import { UploadedRotation } from "./uploaded-rotation.js";

/** Uploads a coded matrix as the kernels take it; the caller frees with freeTrellisWeights. Validates first. */
export function trellisWeights(backend: Backend, coded: CodedMatrix, name?: string): TrellisWeights {
  const { code } = validateTrellis(coded, name);
  const codes = pairedCodes(coded, code);
  const tables = storedNumbers(coded, "tables");
  const scales = storedNumbers(coded, "scales");
  const maps = Uint8Array.from(
    distinctWidths(code.widths).flatMap((width) => [
      ...mapBytes(windowMap(code.codeBits, width), code.codeBits),
    ]),
  );
  const held: (Buffer | ByteBuffer)[] = [];
  const floats = (data: Float32Array): Buffer => {
    const buffer = upload(backend, data);
    held.push(buffer);
    return buffer;
  };
  const bytes = (data: Uint8Array): ByteBuffer => {
    const buffer = backend.allocateBytes(data.length);
    held.push(buffer);
    backend.writeBytes(buffer, data);
    return buffer;
  };
  try {
    return {
      rows: coded.rows,
      columns: coded.columns,
      ...code,
      codes: bytes(codes),
      tables: floats(tables),
      scales: floats(scales),
      maps: bytes(maps),
    };
  } catch (error) {
    for (const buffer of held) backend.free(buffer);
    throw error;
  }
}

export function freeTrellisWeights(backend: Backend, { codes, tables, scales, maps }: TrellisWeights): void {
  for (const buffer of [codes, tables, scales, maps]) backend.free(buffer);
}

export class TrellisLinear implements Linear {
  readonly inputs: number;
  readonly outputs: number;
  readonly bytes: number;
  readonly #backend: Backend;
  readonly #weights: TrellisWeights;
  readonly #rotation: UploadedRotation;
  readonly #bias: Float32Array | undefined;
  /** Rotated inputs, and the bias once for each token: grown to the most tokens seen. */
  #rotated: Buffer | undefined;
  #biases: Buffer | undefined;

  /** `bias` [rows]. Throws CorruptFileError naming `name` on impossible parameters or tensors. */
  constructor(backend: Backend, coded: CodedMatrix, bias?: Float32Array | undefined, name?: string) {
    const { seed } = validateTrellis(coded, name);
    this.inputs = coded.columns;
    this.outputs = coded.rows;
    this.#backend = backend;
    this.#bias = bias;
    this.#weights = trellisWeights(backend, coded, name);
    const { codes, tables, scales, maps } = this.#weights;
    this.#rotation = new UploadedRotation(backend, coded.columns, seed);
    const floats = tables.length + scales.length + this.#rotation.length + (bias?.length ?? 0);
    this.bytes = codes.byteLength + maps.byteLength + 4 * floats;
  }

  forward(x: Buffer, y: Buffer, tokens: number): void {
    const backend = this.#backend;
    this.#rotated = grown(backend, this.#rotated, tokens * this.inputs);
    this.#rotation.rotate(x, this.#rotated, tokens, false);
    backend.trellisMatmul(this.#rotated, this.#weights, y, tokens);
    if (this.#bias) backend.add(y, this.#repeatedBias(this.#bias, tokens), tokens * this.outputs);
  }

  gather(ids: Int32Array, y: Buffer): void {
    this.#backend.trellisGather(this.#weights, ids, y);
    this.#rotation.rotate(y, y, ids.length, true);
  }

  free(): void {
    const backend = this.#backend;
    freeTrellisWeights(backend, this.#weights);
    this.#rotation.free();
    for (const buffer of [this.#rotated, this.#biases]) if (buffer) backend.free(buffer);
    this.#rotated = this.#biases = undefined;
  }

  #repeatedBias(bias: Float32Array, tokens: number): Buffer {
    if (this.#biases && this.#biases.length >= tokens * bias.length) return this.#biases;
    this.#biases = grown(this.#backend, this.#biases, tokens * bias.length);
    for (let t = 0; t < tokens; t++) this.#backend.write(this.#biases, bias, t * bias.length);
    return this.#biases;
  }
}
