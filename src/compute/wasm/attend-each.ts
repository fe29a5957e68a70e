/** How one token of each of several sequences attends: what kernels/attend-each.ts is given. */
import type { AttendEachOptions } from "../backend.js";
import { capacityOf, DIRECT_ROWS, PACKED_FORMATS, threadBytes } from "./attention.js";
import type { WasmBackend } from "./backend.js";
import { addressOf } from "./buffers.js";
import { threadsFor } from "./work.js";
import type { WorkingArea } from "./working-area.js";

const SEQUENCE_WORDS = 5;

/** The arguments have been checked. A token calls this once a layer: it makes few objects. */
export function attendEach(backend: WasmBackend, area: WorkingArea, options: AttendEachOptions): void {
  const { runtime } = backend;
  const { sequences, heads, kvHeads, headSize, scale } = options;
  const window = Math.min(options.window ?? 0x7fffffff, 0x7fffffff);
  const count = sequences.length;
  let attended = 0;
  for (const { position } of sequences) attended += Math.min(position + 1, window);
  const threads = Math.min(threadsFor(attended * heads * headSize, backend.threads), count * kvHeads);
  const rowsPerTask = Math.min(heads / kvHeads, DIRECT_ROWS);
  const pitch = threadBytes(rowsPerTask, headSize, true);
  const scratch = area.reserve(threads * pitch + 4 * SEQUENCE_WORDS * count);
  const table = scratch + threads * pitch;
  const words = runtime.i32(table, SEQUENCE_WORDS * count);
  for (let i = 0, at = 0; i < count; i++, at += SEQUENCE_WORDS) {
    const { keys, values, position, packed } = sequences[i];
    words[at] = addressOf(backend, keys);
    words[at + 1] = addressOf(backend, values);
    words[at + 2] = position;
    words[at + 3] = packed ? PACKED_FORMATS[packed] : 0;
    words[at + 4] = capacityOf(keys, packed, kvHeads, headSize);
  }
  const query = addressOf(backend, options.query);
  const key = addressOf(backend, options.key);
  const value = addressOf(backend, options.value);
  const y = addressOf(backend, options.y);
  const args: number[][] = [];
  for (let t = 0; t < threads; t++)
    args.push([
      ...[table, count, query, key, value, y, heads, kvHeads, headSize, scale, window, rowsPerTask],
      ...[scratch + t * pitch, t, threads],
    ]);
  runtime.parallel("attendEach", args);
}
