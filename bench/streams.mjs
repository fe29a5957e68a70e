// What reading weights from memory costs the kernel of one token: a matrix of 1536 x 576 at 1.5 bits, one of N in
// turn. One matrix stays in the processor's own cache, 160 are as large as SmolLM2-135M at 10x.
//   node bench/streams.mjs [--matrices 1,40,160] [--threads 1] [--rounds 30]
import { parseArgs } from "node:util";
import { createRotation } from "../dist/codec/rotation.js";
import { codeForRate } from "../dist/codec/trellis/index.js";
import { WasmBackend } from "../dist/compute/wasm/backend.js";
import { randomWeight } from "./random-weight.mjs";

const { values } = parseArgs({
  options: {
    matrices: { type: "string", default: "1,40,160" },
    threads: { type: "string", default: "1" },
    rounds: { type: "string", default: "30" },
  },
});
const [ROWS, COLUMNS, CALLS] = [1536, 576, 320];

async function prepare(count) {
  const backend = await WasmBackend.create({ threads: Number(values.threads) });
  const upload = (data) => {
    const buffer = backend.allocate(data.length);
    backend.write(buffer, data);
    return buffer;
  };
  const { signs, q, m } = createRotation(COLUMNS, 0);
  const rotation = { signs: upload(signs), q: upload(q), m };
  const x = upload(Float32Array.from({ length: COLUMNS }, (_, i) => Math.sin(i)));
  const y = backend.allocate(ROWS);
  let bytes = 0;
  const products = Array.from({ length: count }, () => {
    const { weight } = randomWeight(backend, ROWS, COLUMNS, codeForRate(1.5).widths);
    bytes += weight.codes.byteLength;
    return backend.tokenProducts({ x, rotation, products: [{ weight, y }] });
  });
  return { backend, products, bytes, times: [] };
}

const sets = await Promise.all(values.matrices.split(",").map(Number).map(prepare));
for (let round = 0; round < Number(values.rounds); round++)
  for (const { products, times } of sets)
    for (let i = 0; i < CALLS; i++) {
      const start = performance.now();
      products[i % products.length].run();
      times.push(performance.now() - start);
    }
console.log("matrices       MB    best, 10 %, median, 90 %, µs");
for (const { backend, products, bytes, times } of sets) {
  times.sort((a, b) => a - b);
  const at = (share) => (1000 * times[Math.floor(share * (times.length - 1))]).toFixed(1).padStart(8);
  const size = (bytes / 1e6).toFixed(1).padStart(9);
  console.log(String(products.length).padStart(8) + size + [0, 0.1, 0.5, 0.9].map(at).join(""));
  await backend.close();
}
