/** A coded matrix of random codes, as a backend's kernels take it; `free` gives its memory back. */
import { lanesOf, positionsOf } from "../dist/compute/trellis-lanes.js";

/** Uniform in [-1, 1). */
const numbers = (length) => Float32Array.from({ length }, () => 2 * Math.random() - 1);
const bytes = (length) => Uint8Array.from({ length }, () => 256 * Math.random());

export function randomWeight(backend, rows, columns, widths, interleave = 1) {
  const chaining = { rows, interleave, tailBiting: true };
  const lanes = lanesOf(chaining, backend.threads);
  let groups = 0;
  for (let column = 0; column < columns; groups++) column += widths[groups % widths.length];
  const pairs = Math.ceil(groups / 2);
  const distinct = new Set(widths);
  const floats = (data) => {
    const buffer = backend.allocate(data.length);
    backend.write(buffer, data);
    return buffer;
  };
  const packed = (data) => {
    const buffer = backend.allocateBytes(data.length);
    backend.writeBytes(buffer, data);
    return buffer;
  };
  const weight = {
    ...{ rows, columns, widths, pairs, steps: lanes.steps, tileSteps: lanes.tileSteps },
    codes: backend.trellisCodes({
      stored: bytes(pairs * rows),
      codeBits: 4,
      streams: pairs,
      carries: [null],
      chaining,
      lanes,
    }),
    rowAt: packed(new Uint8Array(lanes.rowAt.buffer)),
    positions: positionsOf(lanes, rows),
    tables: floats(numbers([...distinct].reduce((sum, width) => sum + 32 * width, 0))),
    scales: floats(numbers(rows)),
    // Split, as the codec's: S1 in the high half of a byte, S2 in the low one.
    maps: packed(bytes(32 * distinct.size).map((u, i) => u & ((i & 16) === 0 ? 0xf0 : 0x0f))),
  };
  const free = () => {
    for (const key of ["codes", "rowAt", "tables", "scales", "maps"]) backend.free(weight[key]);
  };
  return { weight, free };
}
