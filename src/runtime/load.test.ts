/** Trained models, from their files to numbers known from elsewhere (../shared/data/MANIFEST.md). */
import assert from "node:assert/strict";
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { openCheckpoint } from "../checkpoint/open.js";
import { ReferenceBackend } from "../compute/reference/backend.js";
import { InputError } from "../errors.js";
import { evaluate } from "../evaluate/evaluate.js";
import { TransformerSession } from "../transformer/session.js";
import { largestDifference } from "../transformer/tiny-model.test.util.js";
import { loadDenseWeights } from "../transformer/weights.js";
import type { LoadModelOptions } from "./assemble.js";
import { loadModel } from "./load.js";
import type { LoadedModel } from "./loaded-model.js";
import { topIds } from "./ranking.js";
import { POCKET_STORIES, sharedPath } from "./real-models.test.util.js";

const TINY_STORIES = sharedPath("models/TinyStories-656K");
const STORIES_260K = sharedPath("models/stories260K");
const VALIDATION = sharedPath("text/tinystories/tinystories_val.txt");
const skip = TINY_STORIES && STORIES_260K && VALIDATION ? false : "../shared is missing";

async function withModel<T>(
  source: string,
  use: (model: LoadedModel) => Promise<T>,
  options: LoadModelOptions = {},
): Promise<T> {
  const model = await loadModel(source, { threads: 2, ...options });
  try {
    return await use(model);
  } finally {
    await model.close();
  }
}

/** The prompt and `tokens` more, greedily. */
async function greedy(model: LoadedModel, prompt: readonly number[], tokens: number): Promise<string> {
  const session = model.createSession(prompt.length + tokens);
  const ids = [...prompt];
  let logits = await session.forward(Int32Array.from(prompt));
  for (let i = 0; i < tokens; i++) {
    const next = topIds(logits, 1)[0];
    ids.push(next);
    logits = await session.forward(Int32Array.of(next));
  }
  session.free();
  return model.tokenizer.decode(ids);
}

const logitsOf = async (model: LoadedModel, ids: Int32Array): Promise<Float32Array> => {
  const session = model.createSession(ids.length);
  const logits = await session.forward(ids, { logits: "all" });
  session.free();
  return logits;
};

/** Whole stories of the validation text, paragraphs parted by one line end as in the models' training text. */
function stories(count: number): string[] {
  const text = readFileSync(VALIDATION!, "utf8").replaceAll("\n\n", "\n");
  return text
    .split(/\n(?=Once upon a time)/)
    .slice(1, count + 1)
    .map((story) => story.trim());
}

/** Mean nats per token of each story on its own, BOS first, cut at the model's context. */
async function natsPerToken(model: LoadedModel, texts: readonly string[]): Promise<number> {
  let nats = 0;
  let tokens = 0;
  for (const text of texts) {
    const ids = model.tokenizer.encodeLong(text).subarray(0, model.contextLength);
    assert.equal(ids[0], model.tokenizer.bosTokenId);
    const whole = {
      ...model,
      tokenizer: { addsBos: false, bosTokenId: null, eosTokenId: null, encodeLong: () => ids },
    };
    const result = await evaluate({ model: whole, text, context: ids.length });
    nats += result.windowNats[0] * result.tokensScored;
    tokens += result.tokensScored;
  }
  return nats / tokens;
}

test("the repository's story model loads and tells a story", async () => {
  await withModel(POCKET_STORIES, async (model) => {
    assert.equal(model.bytes, 4 * 2755008);
    assert.equal(model.contextLength, 512);
    const story = await greedy(model, model.tokenizer.encode("Once upon a time"), 16);
    assert.match(story, /^Once upon a time, there was a little (girl|boy) named \w+\./);
  });
});

test("stories260K (llama2.c): published greedy text, loss near the recorded 1.251", { skip }, async () => {
  await withModel(join(STORIES_260K!, "stories260K.bin"), async (model) => {
    const published = readFileSync(join(STORIES_260K!, "stories260K.md"), "utf8");
    const expected = /-t 0\.0\n([\s\S]*?)\n```/.exec(published)?.[1];
    const text = await greedy(model, [model.tokenizer.bosTokenId!], 256);
    assert.ok(expected && expected.length > 500);
    assert.equal(text.trim().slice(0, expected.length), expected);
    // The recorded figure is of another cut of the same text; stories differ by 10 % among themselves.
    const nats = await natsPerToken(model, stories(20));
    assert.ok(Math.abs(nats / 1.251 - 1) < 0.04, `${nats} nats`);
  });
});

test("TinyStories-656K: loss near the recorded 2.867, the Q8_0 GGUF close to safetensors", {
  skip,
}, async () => {
  const texts = stories(20);
  await withModel(TINY_STORIES!, (reference) =>
    withModel(join(TINY_STORIES!, "TinyStories-656K-Q8_0.gguf"), async (model) => {
      const nats = await natsPerToken(reference, texts);
      assert.ok(Math.abs(nats / 2.867 - 1) < 0.04, `${nats} nats`);
      const result = await evaluate({ model, reference, text: texts.join("\n"), context: 128 });
      assert.ok(result.windows >= 20);
      // Q8_0 rounds weights to 1/254 of a block's largest: small, but not nothing.
      const { perplexity, referencePerplexity, divergence, sameTop } = result;
      assert.ok(
        Math.abs(perplexity / referencePerplexity! - 1) < 2e-3,
        `${perplexity}, ${referencePerplexity}`,
      );
      assert.ok(divergence!.mean > 1e-6 && divergence!.mean < 1e-3, `KL ${divergence!.mean}`);
      assert.ok(sameTop! > 0.97 && sameTop! < 1, `same top ${sameTop}`);
    }),
  );
});

test("WebAssembly and the reference backend give the same logits", async () => {
  const ids = Int32Array.from({ length: 70 }, (_, i) => (i * 131) % 2048);
  const fast = await withModel(POCKET_STORIES, (model) => logitsOf(model, ids), { kvCache: "f32" });
  const checkpoint = await openCheckpoint(POCKET_STORIES);
  const backend = new ReferenceBackend();
  const weights = await loadDenseWeights(backend, checkpoint);
  await checkpoint.close();
  const exact = await new TransformerSession(backend, weights, 70).forward(ids, { logits: "all" });
  const difference = largestDifference(fast, exact);
  assert.ok(difference < 1e-4, `logits differ by ${difference}`);
});

test("a context shorter than the model's is kept to", async () => {
  await withModel(
    POCKET_STORIES,
    async (model) => {
      assert.equal(model.contextLength, 100);
      model.createSession(100).free();
      assert.throws(() => model.createSession(101), /101 tokens are more than the context of 100/);
    },
    { context: 100 },
  );
});

test("what cannot be loaded is refused in one line", async () => {
  const refuse = (source: string, options: LoadModelOptions, message: RegExp) =>
    assert.rejects(loadModel(source, options), (error) => {
      assert.ok(error instanceof InputError, String(error));
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n/);
      return true;
    });
  await refuse(POCKET_STORIES, { context: 513 }, /513 tokens is longer than the model's: give 512 or less/);
  await refuse(POCKET_STORIES, { threads: 0 }, /threads/);
  await refuse(POCKET_STORIES, { kvCache: "f8" as "f16" }, /the KV cache can be f32, f16, int8, not f8/);
  await refuse(POCKET_STORIES, { signal: AbortSignal.abort(new InputError("interrupted")) }, /interrupted/);
  await refuse(join(POCKET_STORIES, "nothing-here"), {}, /nothing-here: no such file or folder/);
  const folder = mkdtempSync(join(tmpdir(), "pocketllm-load-"));
  try {
    for (const file of ["config.json", "model.safetensors"])
      cpSync(join(POCKET_STORIES, file), join(folder, file));
    await refuse(folder, {}, /has no tokenizer; put tokenizer.json and tokenizer_config.json beside it/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("keys and values in fewer bits hardly change what the model says", async () => {
  const text = readFileSync(new URL("../../examples/held-out-stories.txt", import.meta.url), "utf8");
  await withModel(
    POCKET_STORIES,
    async (reference) => {
      for (const [kvCache, least, most] of [
        ["f16", 1e-9, 1e-5],
        ["int8", 1e-5, 1e-3],
      ] as const)
        await withModel(
          POCKET_STORIES,
          async (model) => {
            const { divergence } = await evaluate({ model, reference, text, context: 256, windows: 2 });
            const { mean } = divergence!;
            assert.ok(mean > least && mean < most, `${kvCache}: KL ${mean}`);
          },
          { kvCache },
        );
    },
    { kvCache: "f32" },
  );
});
