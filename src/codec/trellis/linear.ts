/**
 * A Linear whose weights stay coded: activations are rotated, then multiplied by rows that the backend
 * decodes on the way. Rows that are gathered (an embedding) are rotated back.
 */
import type { Backend, Buffer, ByteBuffer, TrellisWeights } from "../../compute/backend.js";
import type { CodedRows, Linear } from "../../compute/linear.js";
import { SharedScratch } from "../../compute/scratch.js";
import { lanesOf, positionsOf } from "../../compute/trellis-lanes.js";
import { grown, upload } from "../../compute/upload.js";
import type { CodedMatrix } from "../coded.js";
import { distinctWidths } from "./code.js";
import { knownNibbleCode } from "./nibbles.js";
import { storedScales, storedTables, validateTrellis } from "./stored.js";
import { UploadedRotation } from "./uploaded-rotation.js";

/** Uploads a coded matrix as the kernels take it; the caller frees with freeTrellisWeights. Validates first. */
export function trellisWeights(backend: Backend, coded: CodedMatrix, name?: string): TrellisWeights {
  const { code } = validateTrellis(coded, name);
  const { rows, columns } = coded;
  const chaining = { rows, ...code };
  const lanes = lanesOf(chaining, backend.threads);
  const nibbles = new Map(
    distinctWidths(code.widths).map((width) => [width, knownNibbleCode(code.codeBits, width, code.maps)]),
  );
  const stored = coded.tensors.get("codes")!;
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
    const codes = backend.trellisCodes({
      stored: stored.data,
      codeBits: code.codeBits,
      streams: stored.shape[0],
      carries: code.widths.map((width) => nibbles.get(width)!.carry),
      chaining,
      lanes,
    });
    held.push(codes);
    return {
      rows,
      columns,
      widths: code.widths,
      steps: lanes.steps,
      tileSteps: lanes.tileSteps,
      codes,
      rowAt: bytes(new Uint8Array(lanes.rowAt.buffer)),
      positions: positionsOf(lanes, rows),
      tables: floats(storedTables(coded)),
      scales: floats(storedScales(coded)),
      maps: bytes(Uint8Array.from([...nibbles.values()].flatMap(({ maps }) => [...maps]))),
    };
  } catch (error) {
    for (const buffer of held) backend.free(buffer);
    throw error;
  }
}

export function freeTrellisWeights(backend: Backend, weights: TrellisWeights): void {
  const { codes, rowAt, tables, scales, maps } = weights;
  for (const buffer of [codes, rowAt, tables, scales, maps]) backend.free(buffer);
}

export class TrellisLinear implements Linear {
  readonly inputs: number;
  readonly outputs: number;
  readonly bytes: number;
  readonly coded: readonly CodedRows[];
  readonly #backend: Backend;
  readonly #weights: TrellisWeights;
  readonly #rotation: UploadedRotation;
  readonly #bias: Float32Array | undefined;
  readonly #uploadedBias: Buffer | undefined;
  /** Of rotated inputs: one for all matrices, since 210 of 512 tokens would hold 250 MB in SmolLM2-135M. */
  readonly #scratch: SharedScratch;
  /** The bias once for each token, grown to the most tokens seen. */
  #biases: Buffer | undefined;

  /** `bias` [rows]. Throws CorruptFileError naming `name` on impossible parameters or tensors. */
  constructor(backend: Backend, coded: CodedMatrix, bias?: Float32Array | undefined, name?: string) {
    const { seed } = validateTrellis(coded, name);
    this.inputs = coded.columns;
    this.outputs = coded.rows;
    this.#backend = backend;
    this.#bias = bias;
    this.#weights = trellisWeights(backend, coded, name);
    this.#scratch = SharedScratch.of(backend);
    this.#uploadedBias = bias && upload(backend, bias);
    const { codes, rowAt, tables, scales, maps } = this.#weights;
    this.#rotation = new UploadedRotation(backend, coded.columns, seed);
    this.coded = [
      {
        start: 0,
        weight: this.#weights,
        bias: this.#uploadedBias,
        rotation: this.#rotation.parts,
        rotationKey: this.#rotation.key,
      },
    ];
    const floats = tables.length + scales.length + this.#rotation.length + (bias?.length ?? 0);
    this.bytes = codes.byteLength + rowAt.byteLength + maps.byteLength + 4 * floats;
  }

  forward(x: Buffer, y: Buffer, tokens: number, approximate?: boolean): void {
    const backend = this.#backend;
    const rotated = this.#scratch.take(tokens * this.inputs);
    this.#rotation.rotate(x, rotated, tokens, false);
    backend.trellisMatmul(rotated, this.#weights, y, tokens, approximate);
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
    this.#scratch.release();
    for (const buffer of [this.#biases, this.#uploadedBias]) if (buffer) backend.free(buffer);
    this.#biases = undefined;
  }

  #repeatedBias(bias: Float32Array, tokens: number): Buffer {
    if (this.#biases && this.#biases.length >= tokens * bias.length) return this.#biases;
    this.#biases = grown(this.#backend, this.#biases, tokens * bias.length);
    for (let t = 0; t < tokens; t++) this.#backend.write(this.#biases, bias, t * bias.length);
    return this.#biases;
  }
}
