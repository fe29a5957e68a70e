// Speed of the compute room: dense and coded matrix products, Gram sums, attention, dispatch.
//   node bench/gemm.mjs [--threads 1,2] [--only dense|coded|gram|attention|dispatch] [--seconds 0.2]
// Each figure is the best of many runs (the machine may be shared): GFLOP/s for products of f32,
// Gweights/s (weights decoded and multiplied once per call, whatever the number of tokens) for coded ones.
import { parseArgs } from "node:util";
import { bestOf } from "../dist/bench/index.js";
import { WasmBackend } from "../dist/compute/wasm/backend.js";
import { randomWeight } from "./random-weight.mjs";

const { values: options } = parseArgs({
  options: {
    threads: { type: "string", default: "1,2" },
    only: { type: "string" },
    seconds: { type: "string", default: "0.2" },
  },
});
const threadCounts = options.threads.split(",").map(Number);
const best = bestOf(Number(options.seconds));
const TOKENS = [1, 4, 32, 128, 512];

function random(backend, length) {
  const buffer = backend.allocate(length);
  backend.write(
    buffer,
    Float32Array.from({ length }, () => Math.random() - 0.5),
  );
  return buffer;
}

function print(cells) {
  console.log(cells.map((cell, i) => (i === 0 ? cell.padEnd(34) : cell.padStart(9))).join(""));
}

function dense(backend) {
  print(["dense GFLOP/s [outputs x inputs]", ...TOKENS.map((t) => `T=${t}`)]);
  for (const [outputs, inputs] of [
    [576, 576],
    [1536, 576],
    [576, 1536],
    [49152, 576],
  ]) {
    const weight = random(backend, outputs * inputs);
    const cells = TOKENS.map((tokens) => {
      const x = random(backend, tokens * inputs);
      const y = backend.allocate(tokens * outputs);
      const seconds = best(() => backend.matmul({ x, weight, y, tokens, inputs, outputs }));
      for (const buffer of [x, y]) backend.free(buffer);
      return ((2e-9 * tokens * inputs * outputs) / seconds).toFixed(1);
    });
    print([`${outputs} x ${inputs}`, ...cells]);
    backend.free(weight);
  }
}

function coded(backend) {
  print(["coded Gweights/s (GFLOP/s)", ...TOKENS.map((t) => `T=${t}`)]);
  for (const [rows, columns] of [
    [1536, 576],
    [576, 1536],
  ]) {
    for (const [bits, widths, interleave] of [
      [1, [4], 16],
      [1, [4], 1],
      [2, [2], 16],
      [4, [1], 16],
    ]) {
      const { weight, free } = randomWeight(backend, rows, columns, widths, interleave);
      const cells = TOKENS.map((tokens) => {
        const x = random(backend, tokens * columns);
        const y = backend.allocate(tokens * rows);
        const seconds = best(() => backend.trellisMatmul(x, weight, y, tokens));
        for (const buffer of [x, y]) backend.free(buffer);
        const rate = (1e-9 * rows * columns) / seconds;
        return tokens === 1 ? rate.toFixed(2) : `(${(2 * tokens * rate).toFixed(1)})`;
      });
      print([`${rows} x ${columns}, ${bits} bit, S = ${interleave}`, ...cells]);
      free();
    }
  }
}

function gram(backend) {
  print(["gram GFLOP/s", "half", "full"]);
  for (const columns of [576, 1536]) {
    const tokens = 1024;
    const x = random(backend, tokens * columns);
    const h = backend.allocate(columns * columns);
    const half = best(() => backend.gram(x, h, tokens, columns));
    const full = best(() => backend.crossGram(x, x, h, tokens, columns));
    const operations = 2e-9 * tokens * columns * columns;
    print([`${columns} columns`, (operations / 2 / half).toFixed(1), (operations / full).toFixed(1)]);
    for (const buffer of [x, h]) backend.free(buffer);
  }
}

function attention(backend) {
  const [heads, kvHeads, headSize] = [9, 3, 64];
  print(["attention, 9/3 heads of 64", "µs", "GFLOP/s"]);
  for (const [tokens, position] of [
    [1, 255],
    [1, 1023],
    [128, 0],
    [1024, 0],
  ]) {
    const positions = position + tokens;
    const query = random(backend, tokens * heads * headSize);
    const keys = random(backend, positions * kvHeads * headSize);
    const values = random(backend, positions * kvHeads * headSize);
    const y = backend.allocate(tokens * heads * headSize);
    const shape = { tokens, position, heads, kvHeads, headSize, scale: 0.125, window: null };
    const seconds = best(() => backend.attention({ query, keys, values, y, ...shape }));
    const operations = 4 * heads * headSize * (tokens * position + (tokens * (tokens + 1)) / 2);
    print([
      `${tokens} tokens at ${position}`,
      (seconds * 1e6).toFixed(0),
      ((1e-9 * operations) / seconds).toFixed(1),
    ]);
    for (const buffer of [query, keys, values, y]) backend.free(buffer);
  }
}

function dispatch(backend) {
  const { runtime, threads } = backend;
  const args = Array.from({ length: threads }, () => []);
  const rounds = 200;
  const seconds = best(() => {
    for (let i = 0; i < rounds; i++) runtime.parallel("nothing", args);
  });
  print(["dispatch, µs", ((seconds / rounds) * 1e6).toFixed(2)]);
}

const sections = { dense, coded, gram, attention, dispatch };
console.log(`Node ${process.versions.node}`);
for (const threads of threadCounts) {
  const backend = await WasmBackend.create({ threads });
  console.log(`\n${threads} thread${threads > 1 ? "s" : ""}`);
  for (const [name, section] of Object.entries(sections)) {
    if (!options.only || options.only === name) section(backend);
  }
  await backend.close();
}
