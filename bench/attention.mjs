// Time of one token's attention by position: all layers of a model of SmolLM2-135M's shape, over one cache again and
// again (it stays in the processor's own) and over a cache for each layer, as a model has.
//   node bench/attention.mjs [--positions 500,1984] [--threads 1] [--rounds 200]
import { parseArgs } from "node:util";
import { packedRowBytes } from "../dist/compute/kv-format.js";
import { WasmBackend } from "../dist/compute/wasm/backend.js";

const { values } = parseArgs({
  options: {
    positions: { type: "string", default: "500,1984" },
    threads: { type: "string", default: "1" },
    rounds: { type: "string", default: "200" },
  },
});
const [LAYERS, heads, kvHeads, headSize] = [30, 9, 3, 64];
const rounds = Number(values.rounds);
const backend = await WasmBackend.create({ threads: Number(values.threads) });
const uploaded = (length) => {
  const buffer = backend.allocate(length);
  backend.write(
    buffer,
    Float32Array.from({ length }, (_, i) => Math.sin(i)),
  );
  return buffer;
};
const query = uploaded(heads * headSize);
const key = uploaded(kvHeads * headSize);
const value = uploaded(kvHeads * headSize);
const y = uploaded(heads * headSize);

console.log("format  caches  position   µs a position: best, median");
for (const position of values.positions.split(",").map(Number)) {
  const x = uploaded(position * kvHeads * headSize);
  for (const packed of ["f16", "int8"]) {
    const filled = () => {
      const cache = backend.allocateBytes((position + 1) * kvHeads * packedRowBytes(packed, headSize));
      backend.packRows({ x, cache, format: packed, tokens: position, position: 0, kvHeads, headSize });
      return cache;
    };
    for (const count of [1, LAYERS]) {
      const caches = Array.from({ length: count }, () => ({ keys: filled(), values: filled() }));
      const times = [];
      for (let round = 0; round < rounds; round++) {
        const start = performance.now();
        for (let layer = 0; layer < LAYERS; layer++) {
          const sequences = [{ ...caches[layer % count], position, packed }];
          const shape = { heads, kvHeads, headSize, scale: 1 / Math.sqrt(headSize), window: null };
          backend.attendEach({ query, key, value, y, sequences, ...shape });
        }
        times.push((1000 * (performance.now() - start)) / position);
      }
      times.sort((a, b) => a - b);
      const cells = [packed.padEnd(6), String(count).padStart(7), String(position).padStart(9)];
      console.log(cells.join(" "), ...[times[0], times[rounds >> 1]].map((t) => t.toFixed(2).padStart(10)));
      for (const { keys, values } of caches) for (const cache of [keys, values]) backend.free(cache);
    }
  }
  backend.free(x);
}
await backend.close();
