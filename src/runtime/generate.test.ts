import assert from "node:assert/strict";
import { test } from "node:test";
import { InputError, UsageError } from "../errors.js";
import { alphabetModel } from "./alphabet-model.test.util.js";
import { type EndEvent, type GenerateOptions, generate, type Prompt, type TokenEvent } from "./generate.js";
import type { LanguageModel, Session } from "./model.js";
import { PrefixCache } from "./prefix-cache.js";

async function collect(model: LanguageModel, prompt: Prompt, options: GenerateOptions = {}) {
  const tokens: TokenEvent[] = [];
  let end: EndEvent | undefined;
  for await (const event of generate(model, prompt, options)) {
    assert.ok(!end, "nothing follows the end event");
    if (event.type === "token") tokens.push(event);
    else end = event;
  }
  assert.ok(end, "every stream ends with an end event");
  const text = tokens.map((token) => token.text).join("") + end.text;
  return { text, tokens, end };
}

test("generates until the end of the text and frees its session", async () => {
  const model = alphabetModel();
  const { text, tokens, end } = await collect(model, "u");
  assert.equal(text, "vwxyz");
  assert.deepEqual(
    tokens.map(({ token }) => String.fromCharCode(token)),
    ["v", "w", "x", "y", "z"],
  );
  for (const { logprob } of tokens) assert.ok(logprob! < 0 && logprob! > -1e-5);
  assert.equal(end.finishReason, "stop");
  assert.equal(end.tokens, 5);
  assert.equal(end.promptTokens, 1);
  assert.ok(end.prefillSeconds >= 0 && end.decodeSeconds >= 0);
  assert.equal(model.openSessions(), 0);
});

test("maxTokens ends it, without computing a token that nobody asked for", async () => {
  const model = alphabetModel();
  const { text, end } = await collect(model, "xo", { maxTokens: 3 });
  assert.equal(text, "pqr");
  assert.equal(end.finishReason, "length");
  assert.deepEqual(model.forwards, [
    { position: 0, tokens: 2 },
    { position: 2, tokens: 1 },
    { position: 3, tokens: 1 },
  ]);
});

test("token ids as prompt, and end tokens that only the configuration names", async () => {
  const model = alphabetModel();
  const stopAtD: LanguageModel = { ...model, config: { ...model.config, eosTokenIds: [100] } };
  const { text, end } = await collect(stopAtD, [97]);
  assert.equal(text, "bc");
  assert.equal(end.finishReason, "stop");
});

test("stop strings across tokens: neither they nor what may become one is ever shown", async () => {
  const { text, tokens, end } = await collect(alphabetModel(), "a", { stop: ["hij", "efx", "defgz"] });
  assert.equal(text, "bcdefg");
  assert.equal(end.finishReason, "stop");
  assert.equal(end.tokens, 9, "b to j");
  assert.deepEqual(
    tokens.map((token) => token.text),
    ["b", "c", "", "", "", "", "defg", "", ""],
  );
});

test("text held back for a stop string that does not come is given with the end", async () => {
  const { text, end } = await collect(alphabetModel(), "a", { stop: ["defghi"], maxTokens: 5 });
  assert.equal(text, "bcdef");
  assert.equal(end.text, "def");
  assert.equal(end.finishReason, "length");
});

test("abort between tokens: the stream ends at once with what there is", async () => {
  const model = alphabetModel();
  const abort = new AbortController();
  const texts: string[] = [];
  for await (const event of generate(model, "a", { signal: abort.signal })) {
    texts.push(event.text);
    if (event.text === "d") abort.abort();
    if (event.type === "end") assert.equal(event.finishReason, "abort");
  }
  assert.deepEqual(texts, ["b", "c", "d", ""]);
  assert.equal(model.openSessions(), 0);
});

test("abort during the prompt: no token, and no further chunk is computed", async () => {
  const abort = new AbortController();
  const model = alphabetModel({ contextLength: 4096, onForward: (call) => call === 1 && abort.abort() });
  const { tokens, end } = await collect(model, new Array(2000).fill(97), { signal: abort.signal });
  assert.deepEqual(tokens, []);
  assert.equal(end.finishReason, "abort");
  assert.equal(end.prefillTokensPerSecond, null);
  assert.equal(model.forwards.length, 2);
});

test("leaving the loop frees the session", async () => {
  const model = alphabetModel();
  for await (const event of generate(model, "a")) if (event.text === "c") break;
  assert.equal(model.openSessions(), 0);
});

test("an error of the model reaches the caller and frees the session", async () => {
  const model = alphabetModel({
    onForward: (call) => {
      if (call === 2) throw new InputError("out of memory");
    },
  });
  await assert.rejects(collect(model, "a"), /out of memory/);
  assert.equal(model.openSessions(), 0);
});

test("a format that cannot be held frees the session", async () => {
  const model = alphabetModel();
  const createConstraint = async () => {
    throw new InputError("no such format");
  };
  const strict = { ...model, createSession: model.createSession.bind(model), createConstraint };
  await assert.rejects(collect(strict, "a", { format: { type: "json" } }), /no such format/);
  assert.equal(model.openSessions(), 0);
});

test("a cache is reused: only what differs from before is computed", async () => {
  const model = alphabetModel();
  const cache = new PrefixCache(model.createSession(64));
  await collect(model, "x.q", { cache, maxTokens: 3 });
  model.forwards.length = 0;
  // The cache holds "x.qrs": the last token was never computed.
  const second = await collect(model, "x.qr.a", { cache, maxTokens: 1 });
  assert.equal(second.text, "b");
  assert.equal(second.end.reusedTokens, 4);
  assert.deepEqual(model.forwards, [{ position: 4, tokens: 2 }]);
  model.forwards.length = 0;
  const same = await collect(model, "x.qr.a", { cache, maxTokens: 1 });
  assert.equal(same.text, "b");
  assert.deepEqual(model.forwards, [{ position: 5, tokens: 1 }], "the last token is always run");
  assert.equal(model.openSessions(), 1, "the caller's cache stays open");
});

test("what does not fit the context is refused before any work, with the numbers", async () => {
  const model = alphabetModel({ contextLength: 10 });
  const refuses = async (prompt: string, options: GenerateOptions, message: RegExp, type = InputError) => {
    await assert.rejects(
      collect(model, prompt, options),
      (error) => error instanceof type && message.test(error.message),
    );
  };
  await refuses("0123456789", {}, /prompt has 10 tokens and the context holds 10/);
  await refuses("01234567", { maxTokens: 3 }, /8 tokens and 3 new ones exceed the context of 10.*at most 2/);
  await refuses("01234", { contextLength: 4 }, /5 tokens and the context holds 4/);
  await refuses("a", { contextLength: 11 }, /context of 11 tokens/, UsageError);
  await refuses("a", { maxTokens: 0 }, /at least 1/, UsageError);
  await refuses("a", { topP: 2 }, /top-p/, UsageError);
  await refuses("", {}, /prompt is empty/);
  assert.equal(model.openSessions(), 0);
  assert.deepEqual(model.forwards, []);
  const { text, end } = await collect(model, "01234567", {});
  assert.equal(text, "ab");
  assert.equal(end.finishReason, "length");
});

test("the same seed gives the same text, another one another", async () => {
  const run = async (seed: number) =>
    (await collect(alphabetModel(), "a", { temperature: 30, maxTokens: 40, seed })).tokens.map(
      ({ token }) => token,
    );
  assert.deepEqual(await run(1), await run(1));
  assert.notDeepEqual(await run(1), await run(2));
});

test("a context that shifts goes on past its end and keeps its first tokens", async () => {
  const model = alphabetModel({ contextLength: 16 });
  const shifts: number[][] = [];
  const createSession = (capacity: number): Session => {
    const session = model.createSession(capacity);
    return {
      ...session,
      get position() {
        return session.position;
      },
      shift(keep, discard) {
        shifts.push([session.position, keep, discard]);
        session.shift(keep, discard);
      },
    };
  };
  const shifting = { ...model, createSession };
  await assert.rejects(
    collect(shifting, "abc", { maxTokens: 20 }),
    /exceed the context of 16.*let the context shift/,
  );
  const { text, end } = await collect(shifting, "abc", { maxTokens: 20, onContextFull: "shift" });
  assert.equal(text, "defghijklmnopqrstuvw");
  assert.equal(end.finishReason, "length");
  // 3 + 20 tokens, of which the last is never run: 6 more than fit.
  assert.deepEqual(shifts, [[16, 4, 6]]);
  // Without a number of tokens until the end of the text.
  assert.equal((await collect(shifting, "a", { onContextFull: "shift" })).end.finishReason, "stop");
  await assert.rejects(collect(shifting, "a".repeat(16), { onContextFull: "shift" }), /shorten the prompt/);
  await assert.rejects(
    collect(shifting, "a", { onContextFull: "wrap" as "shift" }),
    /"refuse" or "shift", not wrap/,
  );
  assert.equal(model.openSessions(), 0);
});

test("what a shift has moved is not taken for a new prompt's prefix", async () => {
  const model = alphabetModel({ contextLength: 16 });
  const cache = new PrefixCache(model.createSession(16));
  await collect(model, "abc", { maxTokens: 20, onContextFull: "shift", cache });
  const again = await collect(model, "abcdefg", { maxTokens: 2, cache });
  assert.equal(again.end.reusedTokens, 4);
  cache.free();
});

test("a conversation as the prompt goes through the chat template", async () => {
  const model = alphabetModel();
  const { text, end } = await collect(model, [{ role: "user", content: "x" }], { maxTokens: 3 });
  assert.equal(text, "abc");
  assert.ok(end.promptTokens > 3);
  const none = alphabetModel({ chatTemplate: null });
  await assert.rejects(collect(none, [{ role: "user", content: "x" }]), /has no chat template/);
});
