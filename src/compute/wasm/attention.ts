/** How attention is split into tasks for the threads, and the memory that each thread needs for one. */
import type { AttentionOptions } from "../backend.js";
import { type PackedFormat, packedCapacity } from "../kv-format.js";
import { threadsFor } from "./work.js";

/** Keys of one block (KEYS in kernels/attention.ts). */
const BLOCK_KEYS = 64;
const TASK_ROWS = 16;
/**
 * Unpacking a block costs about as much as two rows: 512 tokens of 9 heads of 64 take 30.0 ms with f32, 36.1 with
 * f16 in tasks of 16 rows and 30.5 in tasks of 64.
 */
const PACKED_TASK_ROWS = 64;
/** Up to here rows of packed keys are multiplied without unpacking them to memory (kernels/attention-direct.ts). */
export const DIRECT_ROWS = 4;
/** Formats of keys and values by their numbers in kernels/kv-cache.ts; 0 is f32. */
export const PACKED_FORMATS = { f16: 1, int8: 2 } as const;

export interface AttentionPlan {
  readonly threads: number;
  /** Rows of one key head that are a task; a row is one query head of one token. */
  readonly rowsPerTask: number;
  /** Bytes of each thread's scratch, whole cache lines. */
  readonly threadBytes: number;
  readonly format: number;
  readonly capacity: number;
}

/** Positions that a packed cache has room for, which the kernels need to find its heads; 0 for f32. */
export function capacityOf(
  cache: AttentionOptions["keys"],
  packed: PackedFormat | undefined,
  kvHeads: number,
  headSize: number,
): number {
  if (!packed || !("byteLength" in cache)) return 0;
  return packedCapacity(cache.byteLength, packed, kvHeads, headSize);
}

export function planAttention(options: AttentionOptions, available: number): AttentionPlan {
  const { tokens, position, heads, kvHeads, headSize, packed } = options;
  const span = Math.min(position + tokens, options.window ?? Number.POSITIVE_INFINITY);
  const threads = threadsFor(tokens * span * heads * headSize, available);
  // Rows share the loads of a block of keys, but few tasks would leave a thread without work.
  const rows = (tokens * heads) / kvHeads;
  const enoughTasks = (perTask: number) => kvHeads * Math.ceil(rows / perTask) >= 4 * threads;
  const choices = packed ? [PACKED_TASK_ROWS, TASK_ROWS, DIRECT_ROWS] : [TASK_ROWS, 4];
  const rowsPerTask = choices.find(enoughTasks) ?? (packed ? Math.min(rows, DIRECT_ROWS) : 1);
  return {
    threads,
    rowsPerTask,
    threadBytes: threadBytes(rowsPerTask, headSize, packed !== undefined),
    format: packed ? PACKED_FORMATS[packed] : 0,
    capacity: capacityOf(options.keys, packed, kvHeads, headSize),
  };
}

/** Scratch of a thread, whole cache lines. */
export function threadBytes(rowsPerTask: number, headSize: number, packed: boolean): number {
  const unpacked = packed ? BLOCK_KEYS * headSize : 0;
  const bytes = 4 * (rowsPerTask * (2 * headSize + BLOCK_KEYS + 2) + unpacked);
  return Math.ceil(bytes / 64) * 64;
}
