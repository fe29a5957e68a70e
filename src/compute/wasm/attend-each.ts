/** How one token of each of several sequences attends: what kernels/attend-each.ts is given. */
import type { AttendEachOptions } from "../backend.js";
import { DIRECT_ROWS, storedAs, threadBytes } from "./attention.js";
import type { WasmBackend } from "./backend.js";
import { addressOf } from "./buffers.js";
import { threadsFor } from "./work.js";
import type { WorkingArea } from "./working-area.js";

const SEQUENCE_WORDS = 5;

/** The arguments have been checked. */
export function attendEach(backend: WasmBackend, area: WorkingArea, options: AttendEachOptions): void {
  const { runtime } = backend;
  const { sequences, heads, kvHeads, headSize, scale } = options;
  const window = Math.min(options.window ?? 0x7fffffff, 0x7fffffff);
  const count = sequences.length;
  const keys = sequences.reduce((sum, { position }) => sum + Math.min(position + 1, window), 0);
  const threads = Math.min(threadsFor(keys * heads * headSize, backend.threads), count * kvHeads);
  const rowsPerTask = Math.min(heads / kvHeads, DIRECT_ROWS);
  const pitch = threadBytes(rowsPerTask, headSize, true);
  const scratch = area.reserve(threads * pitch + 4 * SEQUENCE_WORDS * count);
  const table = scratch + threads * pitch;
  const words = runtime.i32(table, SEQUENCE_WORDS * count);
  for (const [i, { keys, values, position, packed }] of sequences.entries()) {
    const at = [addressOf(backend, keys), addressOf(backend, values), position];
    words.set([...at, ...storedAs({ keys, packed, kvHeads, headSize })], SEQUENCE_WORDS * i);
  }
  const rows = [options.query, options.key, options.value, options.y].map((b) => addressOf(backend, b));
  const shared = [table, count, ...rows, heads, kvHeads, headSize, scale, window, rowsPerTask];
  runtime.parallel(
    "attendEach",
    Array.from({ length: threads }, (_, t) => [...shared, scratch + t * pitch, t, threads]),
  );
}
