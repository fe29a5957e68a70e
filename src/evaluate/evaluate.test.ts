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
