/**
 * The whole way from a GGUF file to logits, greedy text and perplexity against an independent PyTorch
 * implementation (f32): SmolLM2-135M-Instruct, `reference/smollm2-135m.json`.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { evaluate } from "../evaluate/evaluate.js";
import { loadModel } from "./load.js";
import type { LoadedModel } from "./loaded-model.js";
import { topIds } from "./ranking.js";
import { sharedPath, smolLm2 } from "./real-models.test.util.js";

interface Reference {
  readonly prompts: readonly {
    readonly text: string;
    readonly ids: readonly number[];
    readonly topIds: readonly number[];
    readonly topLogits: readonly number[];
    readonly logitMean: number;
    readonly logitStd: number;
    readonly greedy24: readonly number[];
    readonly greedyText: string;
  }[];
  /** byWindows: [windows, perplexity of all but a window's first token, of its second half]. */
  readonly perplexity: {
    readonly context: number;
    readonly windows: number;
    readonly tokensInText: number;
    readonly allButFirst: number;
    readonly byWindows: readonly (readonly [number, number, number])[];
  };
}

const path = smolLm2();
const referencePath = sharedPath("reference/smollm2-135m.json");
const textPath = sharedPath("text/wikitext-2-raw/wikitext-test.hf-join.txt");
const skip = path && referencePath && textPath ? false : "SmolLM2 or ../shared is missing";

describe("SmolLM2-135M against PyTorch", { skip }, () => {
  let model: LoadedModel;
  let reference: Reference;
  before(async () => {
    reference = JSON.parse(readFileSync(referencePath!, "utf8")) as Reference;
    // Keys and values in 16 bits move a logit by up to .0015.
    model = await loadModel(path!, { kvCache: "f32", decoding: "exact" });
  });
  after(() => model.close());

  test("token ids, the 16 largest logits, mean and deviation of all", async () => {
    for (const prompt of reference.prompts) {
      const ids = model.tokenizer.encodeLong(prompt.text);
      assert.deepEqual([...ids], prompt.ids);
      const session = model.createSession(ids.length);
      const logits = await session.forward(ids);
      session.free();
      const order = topIds(logits, 16);
      assert.deepEqual(order, prompt.topIds);
      order.forEach((id, i) => {
        const error = Math.abs(logits[id] - prompt.topLogits[i]);
        assert.ok(error < 1e-4, `logit of ${id} is off by ${error}`);
      });
      const mean = logits.reduce((a, b) => a + b) / logits.length;
      const deviation = Math.sqrt(logits.reduce((s, v) => s + (v - mean) ** 2, 0) / logits.length);
      assert.ok(Math.abs(mean - prompt.logitMean) < 1e-4);
      assert.ok(Math.abs(deviation - prompt.logitStd) < 1e-4);
    }
  });

  test("24 greedy tokens with the KV cache, and the same from the whole sequence at once", async () => {
    const vocabulary = model.config.vocabularySize;
    for (const prompt of reference.prompts) {
      const session = model.createSession(128);
      const greedy: number[] = [];
      let logits = await session.forward(Int32Array.from(prompt.ids));
      for (;;) {
        greedy.push(topIds(logits, 1)[0]);
        if (greedy.length === 24) break;
        logits = await session.forward(Int32Array.of(greedy[greedy.length - 1]));
      }
      assert.deepEqual(greedy, prompt.greedy24);
      assert.equal(model.tokenizer.decode(greedy), prompt.greedyText);
      session.truncate(0);
      const sequence = Int32Array.from([...prompt.ids, ...greedy.slice(0, -1)]);
      const all = await session.forward(sequence, { logits: "all" });
      session.free();
      const chosen = greedy.map((_, i) => {
        const row = prompt.ids.length - 1 + i;
        return topIds(all.subarray(row * vocabulary, (row + 1) * vocabulary), 1)[0];
      });
      assert.deepEqual(chosen, greedy);
    }
  });

  test("protocol llamacpp: the second halves of the first 4 windows", async () => {
    const text = readFileSync(textPath!, "utf8");
    const { context, byWindows } = reference.perplexity;
    const [windows, , secondHalf] = byWindows[3];
    const result = await evaluate({ model, text, context, windows, protocol: "llamacpp" });
    assert.equal(result.tokensScored, windows * (context / 2 - 1));
    assert.ok(
      Math.abs(result.perplexity / secondHalf - 1) < 1e-3,
      `perplexity ${result.perplexity}, PyTorch ${secondHalf}`,
    );
  });

  test("perplexity of WikiText-2, 16 windows of 1024, in all and after each window", async () => {
    const text = readFileSync(textPath!, "utf8");
    const { context, windows, allButFirst, byWindows, tokensInText } = reference.perplexity;
    assert.equal(model.tokenizer.encodeLong(text).length, tokensInText);
    const result = await evaluate({ model, text, context, windows });
    assert.equal(result.tokensScored, windows * (context - 1));
    assert.ok(
      Math.abs(result.perplexity / allButFirst - 1) < 1e-3,
      `perplexity ${result.perplexity}, PyTorch ${allButFirst}`,
    );
    let nats = 0;
    result.windowNats.forEach((windowNats, i) => {
      nats += windowNats;
      const perplexity = Math.exp(nats / (i + 1));
      const [count, expected] = byWindows[i];
      assert.equal(count, i + 1);
      assert.ok(
        Math.abs(perplexity / expected - 1) < 1e-3,
        `after ${count} windows ${perplexity}, PyTorch ${expected}`,
      );
    });
  });
});
