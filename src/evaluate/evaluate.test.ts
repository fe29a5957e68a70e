import assert from "node:assert/strict";
import { test } from "node:test";
import { InputError } from "../errors.js";
import { evaluate } from "./evaluate.js";
import { markovModel, type Transitions } from "./markov.test.util.js";

const P: Transitions = [
  [0.5, 0.25, 0.25],
  [0.125, 0.5, 0.375],
  [0.25, 0.25, 0.5],
];
const Q: Transitions = [
  [0.25, 0.5, 0.25],
  [0.125, 0.375, 0.5],
  [0.25, 0.25, 0.5],
];

function near(actual: number | undefined, expected: number): void {
  assert.ok(actual !== undefined && Math.abs(actual - expected) < 1e-6, `${actual} is not ${expected}`);
}

const id = (letter: string) => letter.charCodeAt(0) - 97;

/** Nats of every transition inside the windows, from the definition. */
function nats(text: string, context: number, transitions: Transitions): number[] {
  const out: number[] = [];
  for (let from = 0; from + context <= text.length; from += context)
    for (let t = from + 1; t < from + context; t++)
      out.push(-Math.log(transitions[id(text[t - 1])][id(text[t])]));
  return out;
}

const mean = (values: number[]) => values.reduce((a, b) => a + b, 0) / values.length;
const TEXT = "abcacbbaccabcbacbaacbcabccbaabcabba";

test("every token but a window's first is scored; the last partial window is dropped", async () => {
  const model = markovModel({ transitions: P });
  const result = await evaluate({ model, text: TEXT, context: 8 });
  assert.equal(TEXT.length, 35);
  assert.deepEqual([result.context, result.windows, result.tokensScored], [8, 4, 28]);
  const expected = nats(TEXT, 8, P);
  near(result.perplexity, Math.exp(mean(expected)));
  assert.equal(result.windowNats.length, 4);
  near(result.windowNats[1], mean(expected.slice(7, 14)));
  assert.equal(result.divergence, undefined);
  assert.equal(model.openSessions(), 0);
  // Four fresh windows, none of them seeing the one before.
  assert.deepEqual(
    model.inputs.map((i) => i.length),
    [7, 7, 7, 7],
  );
});

test("--windows takes the first windows", async () => {
  const model = markovModel({ transitions: P });
  const result = await evaluate({ model, text: TEXT, context: 8, windows: 2 });
  assert.deepEqual([result.windows, result.tokensScored], [2, 14]);
  near(result.perplexity, Math.exp(mean(nats(TEXT.slice(0, 16), 8, P))));
  const more = await evaluate({ model, text: TEXT, context: 8, windows: 100 });
  assert.equal(more.windows, 4);
});

test("BOS stands before the text, once, when the tokenizer adds it", async () => {
  const model = markovModel({ transitions: P, bos: 2 });
  const result = await evaluate({ model, text: TEXT, context: 8 });
  near(result.perplexity, Math.exp(mean(nats(`c${TEXT}`, 8, P))));
});

test("against a reference: KL(reference || model), same top token, both perplexities", async () => {
  const model = markovModel({ transitions: Q });
  const reference = markovModel({ transitions: P });
  const result = await evaluate({ model, reference, text: TEXT, context: 8 });
  const kl = P.map((row, t) => row.reduce((sum, p, i) => sum + p * Math.log(p / Q[t][i]), 0));
  const seen: number[] = [];
  for (let from = 0; from + 8 <= TEXT.length; from += 8)
    for (let t = from; t < from + 7; t++) seen.push(id(TEXT[t]));
  near(result.divergence?.mean, mean(seen.map((token) => kl[token])));
  // Rows a and b have another top token, row c is the same.
  near(result.sameTop, mean(seen.map((token) => Number(token === 2))));
  near(result.perplexity, Math.exp(mean(nats(TEXT, 8, Q))));
  near(result.referencePerplexity, Math.exp(mean(nats(TEXT, 8, P))));
  assert.equal(model.openSessions() + reference.openSessions(), 0);
});

test("standard error, and the change of the true token's probability", async () => {
  const options = { model: markovModel({ transitions: Q }), reference: markovModel({ transitions: P }) };
  const result = await evaluate({ ...options, text: TEXT, context: 8 });
  const scored = nats(TEXT, 8, Q);
  const middle = mean(scored);
  const deviation = Math.sqrt(scored.reduce((sum, v) => sum + (v - middle) ** 2, 0) / (scored.length - 1));
  near(result.perplexityStderr ?? undefined, (Math.exp(middle) * deviation) / Math.sqrt(scored.length));
  const changes = scored.map((v, i) => Math.exp(-v) - Math.exp(-nats(TEXT, 8, P)[i]));
  near(result.deltaP?.mean, mean(changes));
  near(result.deltaP?.rms, Math.sqrt(mean(changes.map((v) => v * v))));
});

test("llamacpp: the second half of each window, BOS in place of each window's first token", async () => {
  const half = (text: string) => {
    const out: number[] = [];
    for (let from = 0; from + 8 <= text.length; from += 8)
      for (let t = from + 5; t < from + 8; t++) out.push(-Math.log(P[id(text[t - 1])][id(text[t])]));
    return out;
  };
  const plain = markovModel({ transitions: P });
  const result = await evaluate({ model: plain, text: TEXT, context: 8, protocol: "llamacpp" });
  assert.deepEqual([result.protocol, result.windows, result.tokensScored], ["llamacpp", 4, 12]);
  near(result.perplexity, Math.exp(mean(half(TEXT))));
  const withBos = markovModel({ transitions: P, bos: 2 });
  const other = await evaluate({ model: withBos, text: TEXT, context: 8, protocol: "llamacpp" });
  near(other.perplexity, Math.exp(mean(half(`c${TEXT}`))));
  for (const input of withBos.inputs.filter((_, i) => i % 2 === 0)) assert.equal(input[0], 2);
});

test("gptq: windows of 2048, nothing else", async () => {
  const model = markovModel({ transitions: P, contextLength: 4096 });
  const text = TEXT.repeat(120);
  const result = await evaluate({ model, text, protocol: "gptq" });
  assert.deepEqual([result.context, result.windows, result.tokensScored], [2048, 2, 4094]);
  near(result.perplexity, Math.exp(mean(nats(text, 2048, P))));
});

test("word: documents apart after BOS or EOS, rolling windows, nats a word", async () => {
  const model = markovModel({ transitions: P, bos: 2, contextLength: 4 });
  // White space is a letter to this tokenizer; five words in all.
  const text = ["abca bbc", "cab", "ba a"];
  const result = await evaluate({ model, text, protocol: "word" });
  const chain = (document: string) => nats(`c${document.replaceAll(" ", "a")}`, document.length + 1, P);
  const all = text.flatMap(chain);
  assert.deepEqual([result.windows, result.words, result.tokensScored], [3, 5, 15]);
  near(result.perplexity, Math.exp((mean(all) * 15) / 5));
  near(result.tokenPerplexity, Math.exp(mean(all)));
  near(result.bitsPerByte, mean(all) / Math.LN2);
  const two = await evaluate({ model, text, protocol: "word", windows: 2 });
  assert.deepEqual([two.windows, two.words], [2, 3]);
});

test("an evaluation that stopped goes on from its journal and gives the same numbers", async () => {
  const models = { model: markovModel({ transitions: Q }), reference: markovModel({ transitions: P }) };
  const options = { ...models, text: TEXT, context: 8 };
  const { seconds: _, ...whole } = await evaluate(options);
  const entries = new Map<string, string>();
  const journal = {
    get: (key: string) => (entries.has(key) ? JSON.parse(entries.get(key)!) : undefined),
    put: async (key: string, value: object) => {
      entries.set(key, JSON.stringify(value));
      if (entries.size === 2) throw new InputError("stopped");
    },
  };
  await assert.rejects(evaluate({ ...options, journal }), /stopped/);
  const before = models.model.inputs.length;
  const { seconds: __, ...resumed } = await evaluate({ ...options, journal });
  assert.deepEqual(resumed, whole);
  assert.equal(models.model.inputs.length - before, 2);
});

test("context is 1024 or the model's own, whichever is shorter", async () => {
  const short = await evaluate({ model: markovModel({ transitions: P, contextLength: 16 }), text: TEXT });
  assert.equal(short.context, 16);
  const long = await evaluate({
    model: markovModel({ transitions: P, contextLength: 4096 }),
    text: TEXT.repeat(60),
  });
  assert.deepEqual([long.context, long.windows], [1024, 2]);
});

test("a window is scored in chunks when its logits would be large", async () => {
  // 2^23 logits at a time are 4 tokens of a vocabulary of 2^21.
  const vocabulary = 2 ** 21;
  const model = markovModel({ transitions: Array.from({ length: vocabulary }, () => []) });
  const session = model.createSession(8);
  const uniform = new Float32Array(4 * vocabulary);
  const chunked = {
    ...model,
    createSession: () => ({
      ...session,
      forward: async (ids: Int32Array) => {
        model.inputs.push([...ids]);
        return uniform.subarray(0, ids.length * vocabulary);
      },
    }),
  };
  const result = await evaluate({ model: chunked, text: "abcdefgh", context: 8 });
  assert.deepEqual(model.inputs, [
    [0, 1, 2, 3],
    [4, 5, 6],
  ]);
  near(Math.log(result.perplexity), Math.log(vocabulary));
});

test("what cannot be measured is refused in one line", async () => {
  const model = markovModel({ transitions: P, contextLength: 16 });
  const refuse = (options: Partial<Parameters<typeof evaluate>[0]>, message: RegExp) =>
    assert.rejects(evaluate({ model, text: TEXT, ...options }), (error) => {
      assert.ok(error instanceof InputError, String(error));
      assert.match(error.message, message);
      return true;
    });
  await refuse({ context: 17 }, /context of 17 tokens is longer than the model's: give 16 or less/);
  await refuse({ context: 1 }, /scores nothing/);
  await refuse({ context: 2, protocol: "llamacpp" }, /scores nothing: give .* at least 3/);
  await refuse({ context: 16, protocol: "gptq" }, /gptq has windows of 2048 tokens: leave the context out/);
  await refuse({ protocol: "gptq" }, /windows of 2048 tokens and the model's context is 16/);
  await refuse({ protocol: "word" }, /neither BOS nor EOS/);
  await refuse({ text: "abcab", context: 8 }, /too short: 5 tokens do not fill one window of 8/);
  const wider = markovModel({ transitions: [...P, [1, 0, 0, 0]], contextLength: 16 });
  await refuse({ reference: wider }, /vocabularies of 3 and 4 tokens/);
  const otherIds = markovModel({ transitions: P, contextLength: 16, bos: 0 });
  await refuse({ reference: otherIds }, /tokenizers give different token ids/);
  const broken = markovModel({ transitions: P.map((row) => row.map(() => Number.NaN)), contextLength: 16 });
  await refuse({ model: broken }, /logits of the model are not finite in window 1/);
  await refuse({ reference: broken }, /logits of the (model|reference) are not finite in window 1/);
  assert.equal(broken.openSessions() + model.openSessions(), 0);
});

test("an abort stops between chunks and frees the sessions", async () => {
  const model = markovModel({ transitions: P });
  const abort = new AbortController();
  const running = evaluate({
    model,
    text: TEXT,
    context: 8,
    signal: abort.signal,
    onProgress: ({ done }) => {
      if (done === 2) abort.abort(new InputError("interrupted"));
    },
  });
  await assert.rejects(running, /interrupted/);
  assert.equal(model.inputs.length, 3);
  assert.equal(model.openSessions(), 0);
});
