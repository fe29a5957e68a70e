/**
 * Prepares calls of the trellis kernels (kernels/trellis.ts): the sizes of the working area and what is
 * written there before the threads start.
 */
import type { TrellisWeights } from "../backend.js";
import { trellisShape } from "../checks.js";
import type { WasmRuntime } from "./runtime.js";

export const PLAN_ENTRY_BYTES = 16;
/** A decoded tile should stay in L2 (512 KiB here) beside the activations. */
const TILE_BYTES = 1 << 17;
const MAXIMUM_TILE_ROWS = 64;
/** Before a thread's tile: room for one block of 16 bytes. */
export const SCRATCH_BYTES = 64;
/** Sums of 2048 rows, and tables of a group (kernels/trellis-lookup.ts). */
export const LOOKUP_SUM_BYTES = 4 * 2048;
const LOOKUP_GROUP_BYTES = 128;

export interface TrellisPlan {
  /** Bytes of the shared part of the working area: the plan and the expanded tables. */
  readonly bytes: number;
  readonly tileRows: number;
  /** Bytes between rows of a tile. */
  readonly tileStride: number;
  /** Bytes of the working area that each thread needs to decode a tile and multiply it by `tokens` tokens. */
  readonly tileBytes: (tokens: number) => number;
  /** Bytes of the working area that each thread needs for look-up tables. */
  readonly tableBytes: number;
  /** Fills the shared part at `area` and returns the kernels' first arguments. */
  prepare(runtime: WasmRuntime, area: number): number[];
}

/** Rows of a tile, decoded 16 at a time. */
export function rowsOfTile(tileStride: number): number {
  const blocks = Math.floor(TILE_BYTES / (16 * tileStride));
  return 16 * Math.min(MAXIMUM_TILE_ROWS / 16, Math.max(1, blocks));
}

/** `address` gives the addresses of the buffers in `weight`. */
export function trellisPlan(
  weight: TrellisWeights,
  address: (buffer: TrellisWeights["codes"] | TrellisWeights["tables"]) => number,
): TrellisPlan {
  const { columns, widths, tileSteps } = weight;
  const { groups, pairs, distinct } = trellisShape(weight);
  // One cache line more than the row, so that the 16 rows decoded together never fall in one set of L1.
  const tileStride = Math.ceil(columns / 16) * 64 + 64;
  const tileRows = rowsOfTile(tileStride);
  const planBytes = Math.ceil((widths.length * PLAN_ENTRY_BYTES) / 64) * 64;
  // For each width its 256 groups, then its tables by column.
  const groupBytes = (width: number) => 256 * 4 * width;
  const columnBytes = (width: number) => 32 * 4 * width;
  return {
    bytes: distinct.reduce((sum, width) => sum + groupBytes(width) + columnBytes(width), planBytes),
    tileRows,
    tileStride,
    tileBytes: (tokens) => SCRATCH_BYTES + tileRows * tileStride + 4 * tokens * tileRows,
    tableBytes: LOOKUP_SUM_BYTES + groups * LOOKUP_GROUP_BYTES,
    prepare(runtime, area) {
      let table = address(weight.tables);
      let at = area + planBytes;
      const entries = new Map<number, [groups: number, maps: number, columns: number]>();
      distinct.forEach((width, i) => {
        const byColumn = at + groupBytes(width);
        runtime.exports["trellisExpand"](table, width, at);
        runtime.exports["trellisColumns"](table, width, byColumn);
        entries.set(width, [at, address(weight.maps) + i * 32, byColumn]);
        table += 32 * width * 4;
        at = byColumn + columnBytes(width);
      });
      const plan = runtime.i32(area, widths.length * (PLAN_ENTRY_BYTES / 4));
      widths.forEach((width, i) => {
        plan.set([width, ...entries.get(width)!], i * (PLAN_ENTRY_BYTES / 4));
      });
      const rows = [address(weight.rowAt), address(weight.scales)];
      const codes = [address(weight.codes), tileSteps, pairs];
      return [...codes, columns, area, widths.length, ...rows];
    },
  };
}
