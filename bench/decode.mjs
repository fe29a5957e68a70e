// Speed of decoding, one token at a time: the kernel by shape and rate against the machine's own limits, then
// whole tokens of a model and where their time goes.
//   node bench/decode.mjs [MODEL] [--threads 1,2] [--tokens 100] [--context 32] [--seconds 0.2]
//                         [--exact] [--llama FILE.gguf --modules DIR]
// MODEL is a PocketLLM folder. On a shared machine a whole token is rarely left alone: "undisturbed" is the sum
// of each call's best time over all tokens, "per CPU-second" counts only time spent computing. --llama measures
// llama.cpp on the same cores in the same run; DIR is a folder with node-llama-cpp in its node_modules.
import { createRequire } from "node:module";
import { parseArgs } from "node:util";
import { bestOf, measureLimits, shareOfLimits } from "../dist/bench/index.js";
import { createRotation } from "../dist/codec/rotation.js";
import { codeForRate } from "../dist/codec/trellis/index.js";
import { WasmBackend } from "../dist/compute/wasm/backend.js";
import { openFolder } from "../dist/container/reader.js";
import { folderSource } from "../dist/runtime/folder-weights.js";
import { TransformerSession } from "../dist/transformer/session.js";
import { loadWeights } from "../dist/transformer/weights.js";
import { randomWeight } from "./random-weight.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: "string", default: "1,2" },
    tokens: { type: "string", default: "100" },
    context: { type: "string", default: "32" },
    seconds: { type: "string", default: "0.2" },
    exact: { type: "boolean", default: false },
    llama: { type: "string" },
    modules: { type: "string" },
  },
});
const best = bestOf(Number(options.seconds));
const TOKENS = Number(options.tokens);
const CONTEXT = Number(options.context);

function print(...cells) {
  console.log(
    cells.map((cell, i) => (i === 0 ? String(cell).padEnd(30) : String(cell).padStart(13))).join(""),
  );
}

const normal = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
const normals = (length) => Float32Array.from({ length }, normal);

function kernels(backend) {
  const limits = measureLimits(backend);
  const { lookUps, bandwidth } = limits;
  console.log(
    `${backend.runtime.arithmetic} arithmetic: ${(lookUps / 1e9).toFixed(1)} G look-ups of 16 bytes/s, ` +
      `${(bandwidth / 1e9).toFixed(0)} GB/s read from 32 MiB`,
  );
  print("rows x columns, bits", "µs", "Gweights/s", "of look-ups", "of memory", "exact, µs");
  for (const [rows, columns] of [
    [192, 576],
    [576, 576],
    [1536, 576],
    [576, 1536],
    [24576, 576],
  ])
    for (const rate of [1, 1.33, 1.5, 2, 2.67, 3, 4]) {
      const held = [];
      const upload = (data) => {
        const buffer = backend.allocate(data.length);
        backend.write(buffer, data);
        held.push(buffer);
        return buffer;
      };
      const { weight, free } = randomWeight(backend, rows, columns, codeForRate(rate).widths);
      const { signs, q, m } = createRotation(columns, 0);
      const [x, y] = [upload(normals(columns)), upload(new Float32Array(rows))];
      const rotation = { signs: upload(signs), q: upload(q), m };
      const products = backend.tokenProducts({ x, rotation, products: [{ weight, y }] });
      const seconds = best(() => products.run());
      const exact = best(() => backend.trellisMatmul(x, weight, y, 1));
      const shares = shareOfLimits(weight, limits, seconds);
      print(
        `${rows} x ${columns}, ${rate}`,
        (1e6 * seconds).toFixed(1),
        ((1e-9 * rows * columns) / seconds).toFixed(1),
        percent(shares.ofLookUps),
        percent(shares.ofMemory),
        (1e6 * exact).toFixed(0),
      );
      products.free();
      free();
      for (const buffer of held) backend.free(buffer);
    }
}

const percent = (share) => `${(100 * share).toFixed(0)} %`;

/** Times of a token: best, lower quartile, median; and tokens for each second of computing. */
function summary(times, cpu) {
  times.sort((a, b) => a - b);
  const rate = (i) => (1000 / times[i]).toFixed(1);
  const quarter = Math.floor(times.length / 4);
  return [
    rate(0),
    rate(quarter),
    rate(2 * quarter),
    ((1e6 * times.length) / (cpu.user + cpu.system)).toFixed(1),
  ];
}

function argmax(logits) {
  let most = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[most]) most = i;
  return most;
}

async function tokens(source, threads) {
  const backend = await WasmBackend.create({ threads });
  const folder = await openFolder(source);
  const weights = await loadWeights(backend, folder.config, await folderSource(backend, folder));
  const capacity = CONTEXT + TOKENS + 16;
  const session = new TransformerSession(backend, weights, capacity, {
    cache: "f16",
    decoding: options.exact ? "exact" : "fast",
  });
  let logits = await session.forward(Int32Array.from({ length: CONTEXT }, (_, i) => 7 * i + 100));
  const calls = [];
  let next = 0;
  let inside = 0;
  const parallel = backend.runtime.parallel.bind(backend.runtime);
  backend.runtime.parallel = (kernel, lists) => {
    const start = performance.now();
    parallel(kernel, lists);
    const time = performance.now() - start;
    inside += time;
    calls[next] ??= { kernel, time };
    calls[next].time = Math.min(calls[next].time, time);
    next++;
  };
  const times = [];
  let between = Number.POSITIVE_INFINITY;
  for (let i = 0; i < 10; i++) await session.forward(Int32Array.of(i + 5));
  calls.length = 0;
  const before = process.cpuUsage();
  for (let i = 0; i < TOKENS; i++) {
    next = inside = 0;
    const id = argmax(logits);
    const start = performance.now();
    logits = await session.forward(Int32Array.of(id));
    times.push(performance.now() - start);
    between = Math.min(between, times[i] - inside);
  }
  const cpu = process.cpuUsage(before);
  const sums = new Map([["between kernels", between]]);
  for (const { kernel, time } of calls) sums.set(kernel, (sums.get(kernel) ?? 0) + time);
  const total = [...sums.values()].reduce((a, b) => a + b, 0);
  print(`pocketllm, ${threads} threads`, ...summary(times, cpu), (1000 / total).toFixed(1));
  session.free();
  await folder.close();
  await backend.close();
  return [...sums].sort((a, b) => b[1] - a[1]).map(([name, time]) => `${name} ${time.toFixed(2)}`);
}

async function llama(file, threads) {
  const from = createRequire(`${options.modules ?? "."}/`);
  const { getLlama, LlamaLogLevel } = await import(from.resolve("node-llama-cpp"));
  const engine = await getLlama({
    ...{ gpu: false, build: "never", maxThreads: threads, logLevel: LlamaLogLevel.error },
  });
  const model = await engine.loadModel({ modelPath: file, gpuLayers: 0 });
  const context = await model.createContext({ contextSize: CONTEXT + TOKENS + 16, threads });
  const times = [];
  let before;
  let last = 0;
  const prompt = Array.from({ length: CONTEXT }, (_, i) => 7 * i + 100);
  for await (const _ of context.getSequence().evaluate(prompt, { temperature: 0 })) {
    const now = performance.now();
    if (before) times.push(now - last);
    else before = process.cpuUsage();
    last = now;
    if (times.length === TOKENS) break;
  }
  print(`llama.cpp, ${threads} threads`, ...summary(times, process.cpuUsage(before)));
  await engine.dispose();
}

if (positionals.length === 0) {
  const backend = await WasmBackend.create({ threads: 1 });
  kernels(backend);
  await backend.close();
} else {
  print("tokens/s", "best", "quartile", "median", "per CPU-s", "undisturbed");
  for (const threads of options.threads.split(",").map(Number)) {
    if (options.llama) await llama(options.llama, threads);
    const parts = await tokens(positionals[0], threads);
    console.log(`  ms, each at its best: ${parts.join(", ")}`);
  }
}
