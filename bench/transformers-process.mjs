// @huggingface/transformers (ONNX Runtime) as a contestant of bench/peers.mjs, in a process of its own:
// node bench/transformers-process.mjs OPTIONS
import { createRequire } from "node:module";
import { basename, dirname } from "node:path";
import { pathToFileURL } from "node:url";
import { answerParent, DECODE_FROM, promptIds, timed } from "../dist/bench/index.js";

const { modules, model: folder, dtype, threads, promptTokens, newTokens } = JSON.parse(process.argv[2]);
const { AutoModelForCausalLM, env, Tensor } = await import(
  pathToFileURL(createRequire(modules).resolve("@huggingface/transformers"))
);

env.allowRemoteModels = false;
env.localModelPath = dirname(folder);
const model = await AutoModelForCausalLM.from_pretrained(basename(folder), {
  dtype,
  session_options: { intraOpNumThreads: threads, interOpNumThreads: 1 },
});
const prompt = (count) => [...promptIds(count, 49152)];
const row = (ids) => new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);

/** Computes `ids`, then takes `count` tokens, the best each time; `onToken` after each of them. */
async function generate(ids, count, onToken) {
  let given = 0;
  await model.generate({
    inputs: row(ids),
    attention_mask: row(ids.map(() => 1)),
    max_new_tokens: count,
    min_new_tokens: count,
    do_sample: false,
    // It is given the prompt first.
    streamer: { put: () => given++ > 0 && onToken?.(given - 1), end() {} },
  });
}

answerParent(async ({ task }) => {
  if (task === "prefill") return await timed(promptTokens, () => generate(prompt(promptTokens), 1));
  // The first token comes with the prompt; those after it are timed.
  let decoded;
  const tokens = new Promise((resolve) => {
    decoded = resolve;
  });
  let run;
  await generate(prompt(DECODE_FROM), newTokens + 1, (token) => {
    if (token === 1) run = timed(newTokens, () => tokens);
    else if (token === newTokens + 1) decoded();
  });
  return await run;
});
