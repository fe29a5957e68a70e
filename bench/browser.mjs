// A compressed folder in Chromium and in Node, in turn: seconds to load it, prompt and new tokens a second.
//   npm run build && node bench/browser.mjs FOLDER [--tokens 64] [--runs 3]
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";
import { loadModel } from "../dist/index.js";
import { servePage } from "../examples/browser/serve.mjs";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { tokens: { type: "string", default: "64" }, runs: { type: "string", default: "3" } },
});
if (positionals.length !== 1) {
  console.error(`usage: node ${fileURLToPath(import.meta.url)} FOLDER [--tokens 64] [--runs 3]`);
  process.exit(2);
}
const [folder] = positionals;
const tokens = Number(values.tokens);
const PROMPT = "The quick brown fox jumps over the lazy dog and runs into the forest. ".repeat(8);

/** Runs here and, as text, in the page. */
async function measure(load, source, threads, prompt, tokens) {
  const started = performance.now();
  const model = await load(source, { threads });
  const loadSeconds = (performance.now() - started) / 1000;
  let end;
  for await (const event of model.generate(prompt, { maxTokens: tokens, logprobs: false })) end = event;
  const used = model.threads;
  await model.close();
  const { promptTokens, prefillTokensPerSecond: prefill, decodeTokensPerSecond: decode } = end;
  return { threads: used, loadSeconds, promptTokens, prefill, decode };
}

const browser = await chromium.launch({
  executablePath: process.env.POCKETLLM_CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox"],
});
const results = new Map();
const add = (where, result) => results.set(where, [...(results.get(where) ?? []), result]);
for (let run = 0; run < Number(values.runs); run++)
  for (const isolated of [true, false]) {
    const threads = isolated ? 2 : 1;
    add(`node, ${threads} threads`, await measure(loadModel, folder, threads, PROMPT, tokens));
    const server = await servePage({ model: folder, isolated });
    const page = await browser.newPage();
    await page.goto(`http://127.0.0.1:${server.address().port}/model/config.json`);
    const result = await page.evaluate(
      `(async () => {
        const { loadModel } = await import("/pocketllm/pocketllm.js");
        return await (${measure})(loadModel, "/model/", ${threads}, ${JSON.stringify(PROMPT)}, ${tokens});
      })()`,
    );
    add(`chromium, ${result.threads} threads`, result);
    await page.close();
    server.closeAllConnections();
    server.close();
  }
await browser.close();

const median = (list) => list.toSorted((a, b) => a - b)[list.length >> 1];
for (const [where, runs] of results) {
  const of = (key) => median(runs.map((run) => run[key])).toFixed(2);
  console.log(
    `${where}: load ${of("loadSeconds")} s, prompt of ${runs[0].promptTokens} at ${of("prefill")} tokens/s, new at ${of("decode")} tokens/s`,
  );
}
