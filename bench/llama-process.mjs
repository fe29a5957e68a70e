// llama.cpp as a contestant of bench/peers.mjs, in a process of its own: node bench/llama-process.mjs OPTIONS
import { createRequire } from "node:module";
import { answerParent, DECODE_FROM, promptIds, timed } from "../dist/bench/index.js";

const { modules, model: modelPath, threads, promptTokens, newTokens } = JSON.parse(process.argv[2]);
const { getLlama, LlamaLogLevel } = await import(createRequire(modules).resolve("node-llama-cpp"));

const engine = await getLlama({
  ...{ gpu: false, build: "never", maxThreads: threads, logLevel: LlamaLogLevel.error },
});
const model = await engine.loadModel({ modelPath, gpuLayers: 0 });
const contextSize = Math.max(promptTokens, DECODE_FROM + newTokens) + 16;
const context = await model.createContext({ contextSize, threads, batchSize: promptTokens });
const sequence = context.getSequence();
const prompt = (count) => [...promptIds(count, 49152)];

/** Computes `ids`, then takes `count` tokens, without regard to what ends a text. */
async function generate(ids, count) {
  let taken = 0;
  if (count === 0) return;
  for await (const _ of sequence.evaluate(ids, { temperature: 0, yieldEogToken: true }))
    if (++taken === count) break;
}

answerParent(async ({ task }) => {
  await sequence.clearHistory();
  if (task === "prefill") return await timed(promptTokens, () => generate(prompt(promptTokens), 1));
  // The first token comes with the prompt; those after it are timed.
  const tokens = sequence.evaluate(prompt(DECODE_FROM), { temperature: 0, yieldEogToken: true });
  await tokens.next();
  const run = await timed(newTokens, async () => {
    for (let i = 0; i < newTokens; i++) await tokens.next();
  });
  await tokens.return();
  return run;
});
