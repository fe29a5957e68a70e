// Contestants of bench/peers.mjs in headless Chromium: our bundle, and @wllama/wllama. Each has a browser of its
// own, whose processes' computing is counted from /proc (Linux; elsewhere it stays unknown).

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import sirv from "sirv";

const TICKS_PER_SECOND = 100;

/** Seconds that a process and its descendants have computed, null where /proc does not tell. */
function cpuSeconds(root) {
  if (!existsSync("/proc/self/stat")) return null;
  const processes = new Map();
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name)))
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      processes.set(Number(pid), {
        parent: Number(fields[1]),
        ticks: Number(fields[11]) + Number(fields[12]),
      });
    } catch {} // It ended meanwhile.
  const belongs = (pid) => pid === root || (processes.has(pid) && belongs(processes.get(pid).parent));
  let ticks = 0;
  for (const [pid, { ticks: own }] of processes) if (belongs(pid)) ticks += own;
  return ticks / TICKS_PER_SECOND;
}

/** A server of folders by prefix, its pages cross-origin isolated: threads need that. */
async function serve(folders) {
  const servers = Object.entries(folders).map(([prefix, folder]) => [prefix, sirv(folder, { dev: true })]);
  const server = createServer((request, response) => {
    response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
    response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
    if (request.url === "/") return response.setHeader("Content-Type", "text/html").end("<!doctype html>");
    const found = servers.find(([prefix]) => request.url.startsWith(prefix));
    if (!found) return response.writeHead(404).end();
    request.url = request.url.slice(found[0].length - 1);
    found[1](request, response, () => response.writeHead(404).end());
  });
  await new Promise((listening) => server.listen(0, "127.0.0.1", listening));
  return server;
}

/** `start` runs in the page and leaves `globalThis.measure(task)` there, which gives tokens and seconds. */
async function contestant(folders, start, options) {
  // First, since it fails where there is no Chromium.
  const process = await chromium.launchServer({
    executablePath: globalThis.process.env.POCKETLLM_CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox"],
  });
  const { pid } = process.process();
  const server = await serve(folders);
  const close = async () => {
    await process.close();
    server.closeAllConnections();
    server.close();
  };
  try {
    const browser = await chromium.connect(process.wsEndpoint());
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.evaluate(`(${start})(${JSON.stringify(options)})`);
    return {
      async run(task) {
        const before = cpuSeconds(pid);
        const run = await page.evaluate((task) => globalThis.measure(task), task);
        const after = cpuSeconds(pid);
        // A run whose prompt is computed too, but not counted, knows its share of the time.
        const cpu = before === null ? null : (after - before) * (run.seconds / run.wholeSeconds);
        return { tokens: run.tokens, seconds: run.seconds, cpuSeconds: cpu };
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Our bundle with a PocketLLM folder. */
export function pocketllmInChromium(folder, options) {
  const bundle = fileURLToPath(new URL("../dist/browser", import.meta.url));
  return contestant(
    { "/pocketllm/": bundle, "/model/": folder },
    async ({ threads, promptTokens, newTokens }) => {
      const { loadModel } = await import("/pocketllm/pocketllm.js");
      const model = await loadModel("/model/", { threads });
      if (model.threads !== threads) throw new Error(`${model.threads} threads instead of ${threads}`);
      const session = model.createSession(Math.max(promptTokens, 32 + newTokens));
      const prompt = (count) => Int32Array.from({ length: count }, (_, i) => (7919 * i + 100) % 49152);
      globalThis.measure = async (task) => {
        session.truncate(0);
        const whole = performance.now();
        const seconds = (start) => (performance.now() - start) / 1000;
        if (task === "prefill") {
          await session.forward(prompt(promptTokens));
          return { tokens: promptTokens, seconds: seconds(whole), wholeSeconds: seconds(whole) };
        }
        let logits = await session.forward(prompt(32));
        const start = performance.now();
        for (let i = 0; i < newTokens; i++) {
          const most = logits.reduce((best, value, id) => (value > logits[best] ? id : best), 0);
          logits = await session.forward(Int32Array.of(most));
        }
        return { tokens: newTokens, seconds: seconds(start), wholeSeconds: seconds(whole) };
      };
    },
    options,
  );
}

/** wllama with a GGUF file; `modules` is a file in the folder whose node_modules has it. Timings are its own. */
export function wllamaInChromium(gguf, modules, options) {
  const entry = createRequire(modules).resolve("@wllama/wllama");
  const esm = entry.slice(0, entry.lastIndexOf("esm") + 3);
  if (!existsSync(join(esm, "wasm/wllama.wasm"))) throw new Error(`${esm} has no wasm/wllama.wasm`);
  return contestant(
    { "/wllama/": esm, "/model/": dirname(gguf) },
    async ({ file, threads, promptTokens, newTokens }) => {
      const { Wllama } = await import("/wllama/index.js");
      const wllama = new Wllama({ default: "/wllama/wasm/wllama.wasm" }, { suppressNativeLog: true });
      const blob = await (await fetch(`/model/${file}`)).blob();
      const room = Math.max(promptTokens, 32 + newTokens) + 64;
      const sizes = { n_ctx: room, n_batch: promptTokens, n_threads: threads, n_gpu_layers: 0 };
      await wllama.loadModel([blob], sizes);
      if (wllama.getNumThreads() !== threads) throw new Error(`${wllama.getNumThreads()} threads`);
      // " the" is one token of every vocabulary here.
      globalThis.measure = async (task) => {
        const prefill = task === "prefill";
        const whole = performance.now();
        const { timings } = await wllama.createCompletion({
          prompt: " the".repeat(prefill ? promptTokens : 32),
          max_tokens: prefill ? 1 : newTokens + 1,
          temperature: 0,
          cache_prompt: false,
          ignore_eos: true,
        });
        const wholeSeconds = (performance.now() - whole) / 1000;
        return prefill
          ? { tokens: timings.prompt_n, seconds: timings.prompt_ms / 1000, wholeSeconds }
          : { tokens: timings.predicted_n - 1, seconds: timings.predicted_ms / 1000, wholeSeconds };
      };
    },
    { ...options, file: gguf.slice(dirname(gguf).length + 1) },
  );
}
