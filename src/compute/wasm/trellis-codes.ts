/** Brings stored codes into the kernels' order (kernels/trellis-lanes.ts). */
import type { TrellisCodesOptions } from "../backend.js";
import { LANES, sourceRows } from "../trellis-lanes.js";
import type { WasmRuntime } from "./runtime.js";
import { runSplit } from "./work.js";

/**
 * A byte of two codes is unpacked, gathered and stored in 1.5 ns, but between two matrices a worker sleeps, and waking
 * it takes 50 to 200 µs instead of the few that other kernels reckon with: below half a million bytes one thread is
 * faster.
 */
const WORK_PER_BYTE = 0.25;

/** The address and size of a new block of codes, for the caller to free. */
export function trellisCodes(
  runtime: WasmRuntime,
  { stored, codeBits, streams, carries, chaining, lanes }: TrellisCodesOptions,
): { address: number; bytes: number } {
  const { rows } = chaining;
  const source = sourceRows(lanes, chaining);
  const vectors = source.length / LANES;
  const pairs = codeBits === 4 ? streams : Math.ceil(streams / 2);
  const bytes = pairs * (source.length - LANES);
  const padded = Math.ceil(rows / 8) * 8;
  const scratchBytes = Math.ceil((padded + 64 + source.length) / 64) * 64;
  const carriesAt = Math.ceil(stored.length / 64) * 64;
  const sourceAt = carriesAt + 64 * Math.ceil((16 * carries.length) / 64);
  const scratchAt = sourceAt + 64 * Math.ceil((4 * source.length) / 64);
  const address = runtime.allocate(bytes);
  let area: number;
  try {
    area = runtime.allocate(scratchAt + runtime.threads * scratchBytes);
  } catch (error) {
    runtime.free(address);
    throw error;
  }
  runtime.u8(area, stored.length).set(stored);
  const carried = runtime.u8(area + carriesAt, 16 * carries.length);
  carries.forEach((carry, i) => {
    if (carry) carried.set(carry.subarray(0, 8), 16 * i);
  });
  runtime.i32(area + sourceAt, source.length).set(source.map((row) => (row < 0 ? padded : row)));
  const carriesFrom = carries.some((carry) => carry) ? area + carriesAt : 0;
  const before = [area, codeBits, stored.length / streams, rows, streams, area + sourceAt, vectors];
  const { tileSteps } = lanes;
  runSplit(runtime, "trellisLanes", pairs, 1, WORK_PER_BYTE * bytes, (first, end, thread) => [
    ...before,
    tileSteps,
    carriesFrom,
    carries.length,
    area + scratchAt + thread * scratchBytes,
    address,
    first,
    end,
  ]);
  runtime.free(area);
  return { address, bytes };
}
