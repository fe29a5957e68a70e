import assert from "node:assert/strict";
import { test } from "node:test";
import { InputError, UsageError } from "../errors.js";
import { topIds } from "./ranking.js";
import { logProbability, Sampler, type SamplingOptions } from "./sampling.js";

const logits = Float32Array.of(1, 3, 2, 3, -1, 0);

/** The distribution by its plain definition: sorts everything, one step after the other. */
function definition(values: Float32Array, options: SamplingOptions): Map<number, number> {
  const { temperature = 1, topK = 0, topP = 1, minP = 0 } = options;
  const normalise = (list: { id: number; p: number }[]) => {
    const sum = list.reduce((total, { p }) => total + p, 0);
    return list.map(({ id, p }) => ({ id, p: p / sum }));
  };
  let list = normalise([...values].map((v, id) => ({ id, p: Math.exp(v / temperature) })));
  list.sort((a, b) => b.p - a.p || a.id - b.id);
  if (topK > 0) list = normalise(list.slice(0, topK));
  let before = 0;
  list = normalise(list.filter(({ p }) => (before += p) - p < topP));
  list = normalise(list.filter(({ p }) => p >= minP * list[0].p));
  return new Map(list.map(({ id, p }) => [id, p]));
}

function frequencies(values: Float32Array, options: SamplingOptions, draws: number): Map<number, number> {
  const sampler = new Sampler({ ...options, logprobs: false });
  const counts = new Map<number, number>();
  for (let i = 0; i < draws; i++) {
    const { id } = sampler.next(values);
    counts.set(id, (counts.get(id) ?? 0) + 1 / draws);
  }
  return counts;
}

const settings: SamplingOptions[] = [
  { temperature: 1 },
  { temperature: 0.5 },
  { temperature: 2 },
  { temperature: 1, topK: 1 },
  { temperature: 1, topK: 3 },
  { temperature: 1, topK: 100 },
  { temperature: 1, topP: 0.5 },
  { temperature: 1.5, topP: 0.9 },
  { temperature: 1, topP: 0.0001 },
  { temperature: 1, minP: 0.3 },
  { temperature: 1, minP: 1 },
  { temperature: 1.3, topK: 4, topP: 0.8, minP: 0.1 },
];
for (const options of settings) {
  test(`draws follow the definition: ${JSON.stringify(options)}`, () => {
    const expected = definition(logits, options);
    const draws = 20_000;
    const seen = frequencies(logits, options, draws);
    assert.deepEqual([...seen.keys()].sort(), [...expected.keys()].sort(), "the same tokens are possible");
    // Five standard deviations of a frequency over this many draws.
    for (const [id, p] of expected) {
      const tolerance = 5 * Math.sqrt((p * (1 - p)) / draws) + 1e-9;
      assert.ok(Math.abs(seen.get(id)! - p) <= tolerance, `token ${id}: ${seen.get(id)} for ${p}`);
    }
  });
}

test("temperature 0 takes the most likely token, the lowest id among equals", () => {
  assert.equal(new Sampler().next(logits).id, 1);
  assert.equal(new Sampler({ topK: 2, topP: 0.1 }).next(logits).id, 1);
});

test("logprob is that of the model itself, whatever the sampling options", () => {
  const sum = [...logits].reduce((total, v) => total + Math.exp(v), 0);
  const plain = (id: number) => logits[id] - Math.log(sum);
  for (let id = 0; id < logits.length; id++) {
    assert.ok(Math.abs(logProbability(logits, id) - plain(id)) < 1e-12);
  }
  const sampler = new Sampler({ temperature: 3, topK: 2, logitBias: new Map([[0, 50]]) });
  const { id, logprob } = sampler.next(logits);
  assert.equal(id, 0);
  assert.ok(Math.abs(logprob! - plain(0)) < 1e-12);
  assert.equal(new Sampler({ logprobs: false }).next(logits).logprob, null);
  assert.ok(Number.isFinite(logProbability(Float32Array.of(1e4, -1e4), 1)), "no overflow");
});

test("repetition penalty: seen tokens lose, whichever sign their logits have", () => {
  const sampler = new Sampler({ repetitionPenalty: 2 });
  assert.equal(sampler.next(logits).id, 1, "nothing seen yet");
  assert.equal(sampler.next(logits).id, 3, "3 / 2 is less than 3");
  assert.equal(sampler.next(logits).id, 2, "2 is more than 3 / 2");
  const negative = new Sampler({ repetitionPenalty: 2 });
  negative.observe([0]);
  assert.equal(negative.next(Float32Array.of(-1, -1.5)).id, 1, "-1 times 2 is less than -1.5");
});

test("logit bias raises, lowers and forbids; the caller's logits stay as they were", () => {
  const bias = (entries: [number, number][]) => new Sampler({ logitBias: new Map(entries) });
  assert.equal(bias([[4, 10]]).next(logits).id, 4);
  assert.equal(bias([[1, -0.5]]).next(logits).id, 3);
  const forbid = bias([
    [1, Number.NEGATIVE_INFINITY],
    [3, Number.NEGATIVE_INFINITY],
    [99, 5],
  ]);
  assert.equal(forbid.next(logits).id, 2);
  assert.deepEqual([...logits], [1, 3, 2, 3, -1, 0]);
});

test("a mask leaves the tokens that it has bits of, whatever else is asked for; the caller's logits stay", () => {
  const logits = Float32Array.from({ length: 70 }, (_, id) => id / 10);
  const before = logits.slice();
  const mask = Int32Array.of(0b101, 1 << 31, 0b1000000);
  assert.equal(new Sampler().next(logits, mask).id, 63);
  assert.equal(
    new Sampler({ logitBias: new Map([[63, Number.NEGATIVE_INFINITY]]) }).next(logits, mask).id,
    2,
  );
  for (const options of [{ topK: 3 }, { topP: 0.9 }, { minP: 0.01 }, { repetitionPenalty: 1.5 }, {}]) {
    const sampler = new Sampler({ temperature: 5, ...options });
    const drawn = new Set(Array.from({ length: 200 }, () => sampler.next(logits, mask).id));
    assert.ok(
      [...drawn].every((id) => [0, 2, 63].includes(id)),
      `${[...drawn]}`,
    );
  }
  assert.deepEqual(logits, before);
  assert.throws(
    () => new Sampler().next(logits, new Int32Array(3)),
    /the logit bias and the format together forbid every token/,
  );
});

test("the same seed gives the same tokens, another seed others, in every version", () => {
  const run = (seed: number) => {
    const sampler = new Sampler({ temperature: 1.5, seed });
    return Array.from({ length: 16 }, () => sampler.next(logits).id).join("");
  };
  assert.equal(run(7), run(7));
  assert.notEqual(run(7), run(8));
  assert.equal(run(0), "1011223322113133");
});

test("topIds is the head of the whole ranking, ties included", () => {
  let state = 5;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  for (const k of [1, 2, 7, 100, 999, 1000, 2000]) {
    const values = Float32Array.from({ length: 1000 }, () => Math.floor(random() * 50));
    const sorted = [...values.keys()].sort((a, b) => values[b] - values[a] || a - b);
    assert.deepEqual(topIds(values, k), sorted.slice(0, k));
  }
});

test("values out of range and damaged logits are refused", () => {
  const wrong: SamplingOptions[] = [
    { temperature: -1 },
    { temperature: Number.NaN },
    { topK: 1.5 },
    { topP: 0 },
    { topP: 1.01 },
    { minP: -0.1 },
    { repetitionPenalty: 0 },
    { seed: -1 },
    { logitBias: new Map([[3, Number.NaN]]) },
  ];
  for (const options of wrong) assert.throws(() => new Sampler(options), UsageError, JSON.stringify(options));
  const refuses = (values: number[], options: SamplingOptions, message: RegExp) =>
    assert.throws(
      () => new Sampler(options).next(Float32Array.from(values)),
      (error) => error instanceof InputError && message.test(error.message),
    );
  refuses([1, Number.NaN], {}, /not a number/);
  refuses([1, Number.POSITIVE_INFINITY], { temperature: 1 }, /not a number/);
  const forbidden = new Map([
    [0, Number.NEGATIVE_INFINITY],
    [1, Number.NEGATIVE_INFINITY],
  ]);
  refuses([1, 2], { logitBias: forbidden }, /forbids every token/);
});
