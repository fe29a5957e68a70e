/** Driving the Viterbi kernel (kernels/encode/viterbi.ts): its memory, and a search without error feedback. */
import type { WasmRuntime } from "../../compute/wasm/runtime.js";
import { InputError } from "../../errors.js";
import { type CodeBits, cycles, stateCodes } from "./code.js";
import { type Codebook, orderedCodewords } from "./codebook.js";
import type { Schedule } from "./schedule.js";
import { planeStride, Scratch } from "./scratch.js";

/** Cost levels of the expected squared error; as LEVELS in kernels/encode/groups.ts. */
const LEVELS = 256;

/** As in the kernel: look-ahead in steps, and the most steps whose costs are kept at a time. */
const DELAY = 64;
const MAXIMUM_STEPS = 2048 + DELAY;

/** 32-bit words of the kernel's `Search`, in its order. `targets` to `codewords`, `path` may be set later. */
export interface SearchFields {
  readonly targets: number;
  readonly stride: number;
  readonly width: number;
  readonly rowWeights: number;
  readonly codewords: number;
  readonly codeBits: CodeBits;
  readonly schedule: number;
  readonly rows: number;
  readonly interleave: number;
  readonly tailBiting: boolean;
  readonly starts: number;
  readonly codes: number;
  readonly path: number;
}

const SCALE_WORD = 4;

/** Writes a `Search` with room for its costs and distances; returns its address. */
export function allocateSearch(
  runtime: WasmRuntime,
  scratch: Scratch,
  fields: SearchFields,
  scale: number,
): number {
  const { rows, interleave, tailBiting, codeBits } = fields;
  const length = tailBiting ? cycles(rows, interleave).length : Math.ceil(rows / interleave);
  // A cycle shorter than the look-ahead is gone round twice to find the state before its first row.
  const steps = Math.min(tailBiting ? Math.max(length, 2 * Math.min(length, DELAY)) : length, MAXIMUM_STEPS);
  const states = 2 ** (codeBits * stateCodes(codeBits));
  const costs = scratch.bytes(2 * states * (steps + 1));
  const distances = scratch.bytes(2 * 256 * steps);
  const search = scratch.words([
    fields.targets,
    fields.stride,
    fields.width,
    fields.rowWeights,
    0,
    fields.codewords,
    codeBits,
    fields.schedule,
    rows,
    interleave,
    tailBiting ? 1 : 0,
    fields.starts,
    fields.codes,
    fields.path,
    costs,
    distances,
  ]);
  runtime.f32(search + 4 * SCALE_WORD, 1)[0] = scale;
  return search;
}

/** The schedule as the kernel reads it. */
export function allocateSchedule(runtime: WasmRuntime, scratch: Scratch, schedule: Schedule): number {
  const { source, codeAt } = schedule;
  const pointer = scratch.bytes(source.byteLength + codeAt.length);
  runtime.u8(pointer, source.byteLength).set(new Uint8Array(source.buffer));
  runtime.u8(pointer + source.byteLength, codeAt.length).set(codeAt);
  return pointer;
}

export interface SearchOptions {
  /** [width][rows] */
  readonly targets: Float32Array;
  readonly rows: number;
  readonly codebook: Codebook;
  /** [rows] weights of the rows' squared errors. Default: all 1. */
  readonly rowWeights?: Float32Array;
  /** Default 1. */
  readonly interleave?: number;
  /** Default false. */
  readonly tailBiting?: boolean;
}

/**
 * The codes of one column group and the bytes u of its windows, [rows] each, on this thread. Throws
 * InputError if targets or weights are not finite.
 */
export function searchCodes(
  runtime: WasmRuntime,
  { targets, rows, codebook, rowWeights, interleave = 1, tailBiting = false }: SearchOptions,
): { codes: Uint8Array; bytes: Uint8Array } {
  const { width, codeBits, schedule } = codebook;
  const scratch = new Scratch(runtime);
  try {
    const stride = planeStride(rows);
    const planes = scratch.bytes(4 * stride * width);
    for (let v = 0; v < width; v++)
      runtime.f32(planes + 4 * v * stride, rows).set(targets.subarray(v * rows, (v + 1) * rows));
    const starts = scratch.bytes(2 * interleave);
    new Uint16Array(runtime.memory.buffer, starts, interleave).fill(schedule.positionOf[0]);
    const codes = scratch.bytes(rows);
    const path = scratch.bytes(rows);
    const search = allocateSearch(
      runtime,
      scratch,
      {
        targets: planes,
        stride,
        width,
        rowWeights: scratch.floats(rowWeights ?? new Float32Array(rows).fill(1)),
        codewords: scratch.floats(orderedCodewords(codebook)),
        codeBits,
        schedule: allocateSchedule(runtime, scratch, schedule),
        rows,
        interleave,
        tailBiting,
        starts,
        codes,
        path,
      },
      LEVELS / (width * codebook.distortion),
    );
    if (runtime.exports["viterbi"](search) !== 0)
      throw new InputError("cannot code weights that are infinite or not numbers");
    const bytes = runtime.u8(path, rows).slice();
    for (let r = 0; r < rows; r++) bytes[r] = schedule.order[bytes[r]];
    return { codes: runtime.u8(codes, rows).slice(), bytes };
  } finally {
    scratch.free();
  }
}
