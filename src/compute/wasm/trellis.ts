/**
 * Prepares calls of the trellis kernels (kernels/trellis.ts): the sizes of the working area and what is
 * written there before the threads start.
 */
import type { TrellisWeights } from "../backend.js";
import { trellisShape } from "../checks.js";
import type { WasmRuntime } from "./runtime.js";

const PLAN_ENTRY_BYTES = 16;
/** A decoded tile should stay in L2 (512 KiB here) beside the activations. */
const TILE_BYTES = 1 << 17;
const MAXIMUM_TILE_ROWS = 64;

export interface TrellisPlan {
  /** Bytes of the shared part of the working area: the plan and the expanded tables. */
  readonly bytes: number;
  readonly tileRows: number;
  /** Bytes between rows of a tile. */
  readonly tileStride: number;
  /** Bytes of the working area that each thread needs to multiply. */
  readonly threadBytes: number;
  /** Fills the shared part at `area` and returns the kernels' first arguments. */
  prepare(runtime: WasmRuntime, area: number): number[];
}

/** `address` gives the addresses of the buffers in `weight`. */
export function trellisPlan(
  weight: TrellisWeights,
  address: (buffer: TrellisWeights["codes"] | TrellisWeights["tables"]) => number,
): TrellisPlan {
  const { rows, columns, codeBits, widths, interleave, tailBiting } = weight;
  const { distinct, window } = trellisShape(weight);
  // One cache line more than the row, so that the 16 rows decoded together never fall in one set of L1.
  const tileStride = Math.ceil(columns / 16) * 64 + 64;
  const blocks = Math.floor(TILE_BYTES / (16 * tileStride));
  const tileRows = 16 * Math.min(MAXIMUM_TILE_ROWS / 16, Math.max(1, blocks));
  const planBytes = Math.ceil((widths.length * PLAN_ENTRY_BYTES) / 64) * 64;
  const expandedBytes = distinct.map((width) => 256 * 4 * width);
  return {
    bytes: planBytes + expandedBytes.reduce((a, b) => a + b, 0),
    tileRows,
    tileStride,
    threadBytes: 64 + tileRows * tileStride,
    prepare(runtime, area) {
      let table = address(weight.tables);
      let expanded = area + planBytes;
      const entries = new Map<number, [table: number, maps: number]>();
      distinct.forEach((width, i) => {
        runtime.exports["trellisExpand"](table, width, expanded);
        entries.set(width, [expanded, address(weight.maps) + i * window * 16]);
        table += 32 * width * 4;
        expanded += expandedBytes[i];
      });
      const plan = runtime.i32(area, widths.length * (PLAN_ENTRY_BYTES / 4));
      widths.forEach((width, i) => {
        plan.set([width, ...entries.get(width)!], i * (PLAN_ENTRY_BYTES / 4));
      });
      const flags = [widths.length, codeBits, interleave, tailBiting ? 1 : 0];
      return [address(weight.codes), rows, columns, area, ...flags, address(weight.scales)];
    },
  };
}
