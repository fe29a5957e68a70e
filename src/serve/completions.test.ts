/** Completions and chat through OpenAI's own client: the same text and numbers as from the library. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import { scoreContinuations } from "../evaluate/continuation.js";
import { type GenerateOptions, generate } from "../runtime/generate.js";
import type { LoadedModel } from "../runtime/loaded-model.js";
import { loadStories, post, type RunningServer, startServer } from "./server.test.util.js";

let model: LoadedModel;
let server: RunningServer;

before(async () => {
  model = await loadStories();
  server = await startServer(model, { parallel: 4 });
});
after(async () => {
  assert.deepEqual(server.defects, []);
  await server.close();
  await model.close();
});

async function textOf(prompt: string | number[], options: GenerateOptions): Promise<string> {
  let text = "";
  for await (const event of generate(model, prompt, options)) text += event.text;
  return text;
}

const PROMPT = "Once upon a time";

test("models are listed", async () => {
  const { data } = await server.client.models.list();
  assert.deepEqual(
    data.map(({ id, object }) => ({ id, object })),
    [{ id: "stories", object: "model" }],
  );
  assert.equal((await server.client.models.retrieve("stories")).id, "stories");
});

test("a completion is the text that the library generates", async () => {
  const answer = await server.client.completions.create({
    model: "stories",
    prompt: PROMPT,
    max_tokens: 24,
    temperature: 0,
  });
  assert.equal(answer.choices[0].text, await textOf(PROMPT, { maxTokens: 24 }));
  assert.equal(answer.choices[0].finish_reason, "length");
  assert.deepEqual(answer.usage, { prompt_tokens: 5, completion_tokens: 24, total_tokens: 29 });
});

test("a seed gives the library's text, whatever else runs beside it", async () => {
  const sampling = { temperature: 0.9, topP: 0.95 };
  const expected = await Promise.all(
    [1, 2, 3, 4, 5, 6, 7, 8].map((seed) =>
      textOf(`${PROMPT}${" there".repeat(seed)}`, { ...sampling, seed, maxTokens: 12 + seed }),
    ),
  );
  const got = await Promise.all(
    [1, 2, 3, 4, 5, 6, 7, 8].map((seed) =>
      server.client.completions.create({
        model: "stories",
        prompt: `${PROMPT}${" there".repeat(seed)}`,
        temperature: 0.9,
        top_p: 0.95,
        seed,
        max_tokens: 12 + seed,
      }),
    ),
  );
  assert.deepEqual(
    got.map(({ choices }) => choices[0].text),
    expected,
  );
});

test("a stream's pieces are the whole answer, with usage at the end", async () => {
  const request = { model: "stories", prompt: PROMPT, max_tokens: 16, temperature: 0, logprobs: 2 } as const;
  const whole = await server.client.completions.create(request);
  const stream = await server.client.completions.create({
    ...request,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  const logprobs: (number | null)[] = [];
  let usage: OpenAI.CompletionUsage | null | undefined;
  let finish: string | null = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.text ?? "";
    logprobs.push(...(chunk.choices[0]?.logprobs?.token_logprobs ?? []));
    finish = chunk.choices[0]?.finish_reason ?? finish;
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].text);
  assert.deepEqual(logprobs, whole.choices[0].logprobs?.token_logprobs);
  assert.equal(finish, "length");
  assert.deepEqual(usage, whole.usage);
});

test("stop strings end the text and are not in it", async () => {
  const full = await textOf(PROMPT, { maxTokens: 60 });
  const { choices } = await server.client.completions.create({
    model: "stories",
    prompt: PROMPT,
    max_tokens: 60,
    temperature: 0,
    stop: ["Lily", "never"],
  });
  assert.equal(choices[0].text, full.slice(0, full.indexOf("Lily")));
  assert.equal(choices[0].finish_reason, "stop");
});

test("several prompts, n texts of each, in order; seeds repeat", async () => {
  const request = { model: "stories", prompt: [PROMPT, "The dog"], n: 2, seed: -7, max_tokens: 8 };
  const [one, two] = await Promise.all([
    server.client.completions.create(request),
    server.client.completions.create(request),
  ]);
  const texts = one.choices.map(({ text }) => text);
  assert.deepEqual(
    one.choices.map(({ index }) => index),
    [0, 1, 2, 3],
  );
  assert.deepEqual(
    texts,
    two.choices.map(({ text }) => text),
  );
  assert.equal(new Set(texts).size, 4);
  assert.equal(one.usage?.prompt_tokens, 5 + model.tokenizer.encode("The dog").length);
});

test("penalties and biases change the choice", async () => {
  const request = { model: "stories", prompt: "the the the", max_tokens: 24, temperature: 0 };
  const plain = await server.client.completions.create(request);
  const first = model.tokenizer.encode(plain.choices[0].text, { addSpecialTokens: false })[0];
  const banned = await server.client.completions.create({ ...request, logit_bias: { [first]: -100 } });
  assert.notEqual(banned.choices[0].text, plain.choices[0].text);
  const penalised = await server.client.completions.create({
    ...request,
    max_tokens: 60,
    frequency_penalty: 2,
    presence_penalty: 2,
  });
  const repeats = (text: string) => {
    const ids = model.tokenizer.encode(text, { addSpecialTokens: false });
    return ids.length - new Set(ids).size;
  };
  const long = await server.client.completions.create({ ...request, max_tokens: 60 });
  assert.ok(repeats(penalised.choices[0].text) < repeats(long.choices[0].text));
});

test("echo: log-probabilities of the prompt are those that eval sums, in the legacy shape", async () => {
  const ids = model.tokenizer.encode("Lily went to the park. She saw a big dog and ran home.".repeat(8), {
    addSpecialTokens: false,
  });
  const start = 5;
  const exact = await loadStories({ kvCache: "f32", decoding: "exact" });
  const session = exact.createSession(ids.length);
  const [score] = await scoreContinuations(session, model.config.vocabularySize, [
    { ids: Int32Array.from(ids), start },
  ]);
  await exact.close();
  for (const max_tokens of [0, 1]) {
    const { choices } = await server.client.completions.create({
      model: "stories",
      // The harness sends nested ids, even one prompt at a time.
      prompt: [ids] as unknown as number[],
      temperature: 0,
      max_tokens,
      logprobs: 1,
      seed: 1234,
      echo: true,
    });
    const { tokens, token_logprobs, top_logprobs, text_offset } = choices[0].logprobs!;
    for (const list of [tokens, token_logprobs, top_logprobs, text_offset])
      assert.equal(list!.length, ids.length + max_tokens);
    assert.equal(token_logprobs![0], null);
    assert.equal(top_logprobs![0], null);
    const sum = token_logprobs!.slice(start, ids.length).reduce((a, b) => a + b, 0);
    assert.equal(sum, score.logLikelihood);
    for (const [i, top] of top_logprobs!.entries()) {
      if (i === 0) continue;
      assert.ok(Object.values(top).includes(token_logprobs![i]));
      assert.ok(Math.max(...Object.values(top)) >= token_logprobs![i]);
    }
    // Offsets cut the text into the tokens.
    const { text } = choices[0];
    assert.ok(text.startsWith("Lily went to the park."));
    const cut = text_offset!.map((offset, i) => text.slice(offset, text_offset![i + 1]));
    assert.deepEqual(cut, tokens);
  }
});

test("echo of text gives the text; the token that the tokenizer puts before it has no width", async () => {
  const text = "The café is ☕ open";
  const { choices } = await server.client.completions.create({
    model: "stories",
    prompt: text,
    max_tokens: 0,
    echo: true,
    logprobs: 0,
  });
  assert.equal(choices[0].text, text);
  assert.equal(choices[0].finish_reason, "length");
  assert.deepEqual(choices[0].logprobs?.text_offset?.slice(0, 3), [0, 0, 3]);
  const plain = await server.client.completions.create({
    model: "stories",
    prompt: text,
    max_tokens: 2,
    echo: true,
    temperature: 0,
  });
  assert.ok(plain.choices[0].text.startsWith(text) && plain.choices[0].logprobs === null);
});

test("chat: the template's text is continued; streamed and whole alike", async () => {
  const messages = [
    { role: "developer" as const, content: "Be kind." },
    {
      role: "user" as const,
      content: [
        { type: "text" as const, text: "Tell " },
        { type: "text" as const, text: "me." },
      ],
    },
  ];
  const request = { model: "stories", messages, temperature: 0, max_completion_tokens: 12 };
  const answer = await server.client.chat.completions.create(request);
  const ids = model.tokenizer.encode("<|endoftext|>system: Be kind.\nuser: Tell me.\nOnce upon a time", {
    addSpecialTokens: false,
  });
  const expected = await textOf(ids, { maxTokens: 12, answer: true });
  assert.equal(answer.choices[0].message.content, expected);
  assert.equal(answer.usage?.prompt_tokens, ids.length);
  let text = "";
  const roles: unknown[] = [];
  for await (const { choices } of await server.client.chat.completions.create({ ...request, stream: true })) {
    text += choices[0].delta.content ?? "";
    if (choices[0].delta.role) roles.push(choices[0].delta.role);
  }
  assert.equal(text, expected);
  assert.deepEqual(roles, ["assistant"]);
});

test("chat: log-probabilities with alternatives and bytes", async () => {
  const { choices } = await server.client.chat.completions.create({
    model: "stories",
    messages: [{ role: "user", content: "A story." }],
    temperature: 0,
    max_tokens: 5,
    logprobs: true,
    top_logprobs: 3,
  });
  const content = choices[0].logprobs?.content ?? [];
  assert.equal(content.length, 5);
  assert.equal(content.map(({ token }) => token).join(""), choices[0].message.content);
  for (const { token, logprob, bytes, top_logprobs } of content) {
    assert.equal(Buffer.from(bytes!).toString(), token);
    assert.equal(top_logprobs.length, 3);
    assert.equal(top_logprobs[0].logprob, logprob);
    assert.ok(top_logprobs[0].logprob >= top_logprobs[1].logprob && logprob <= 0);
  }
});

test("chat: tools and earlier calls reach the template", async () => {
  const tool = { type: "function" as const, function: { name: "weather", parameters: { type: "object" } } };
  const messages = [{ role: "user" as const, content: "Rain?" }];
  const count = async (extra: object) =>
    (await server.client.chat.completions.create({ model: "stories", messages, max_tokens: 1, ...extra }))
      .usage!.prompt_tokens;
  const plain = await count({});
  assert.ok((await count({ tools: [tool] })) > plain + 5);
  assert.equal(await count({ tools: [tool], tool_choice: "none" }), plain);
});

test("errors have OpenAI's shapes", async () => {
  const { client } = server;
  const fails = async (
    run: () => PromiseLike<unknown>,
    kind: new (...args: never[]) => object,
    wanted: object,
  ) => {
    const error = await Promise.resolve(run()).then(
      () => assert.fail("was accepted"),
      (e: InstanceType<typeof OpenAI.APIError>) => e,
    );
    assert.ok(error instanceof kind, String(error));
    const { status, code, param, type } = error;
    assert.deepEqual({ status, code, param, type }, { type: "invalid_request_error", ...wanted });
  };
  const chat = (extra: object) =>
    client.chat.completions.create({
      model: "stories",
      messages: [{ role: "user", content: "Hello" }],
      max_tokens: 1,
      ...extra,
    });
  const bad = OpenAI.BadRequestError;
  await fails(() => chat({ model: "gpt-9" }), OpenAI.NotFoundError, {
    status: 404,
    code: "model_not_found",
    param: "model",
  });
  await fails(() => chat({ messages: undefined }), bad, {
    status: 400,
    code: "missing_required_parameter",
    param: "messages",
  });
  await fails(() => chat({ tempreature: 1 }), bad, {
    status: 400,
    code: "unknown_parameter",
    param: "tempreature",
  });
  await fails(() => chat({ response_format: { type: "xml" } }), bad, {
    status: 400,
    code: "invalid_value",
    param: "response_format.type",
  });
  await fails(() => chat({ tool_choice: "required" }), bad, {
    status: 400,
    code: "invalid_value",
    param: "tool_choice",
  });
  await fails(() => chat({ max_tokens: 5000 }), bad, {
    status: 400,
    code: "context_length_exceeded",
    param: "messages",
  });
  await fails(() => client.completions.create({ model: "stories", prompt: [99999] }), bad, {
    status: 400,
    code: "invalid_value",
    param: "prompt",
  });
});

test("the tokenizer's endpoints, as a harness asks for them", async () => {
  const info = await (await fetch(`${server.url}/tokenizer_info`)).json();
  assert.equal((info as { eos_token: string }).eos_token, "<|endoftext|>");
  const text = "Once upon a time ☕";
  const { json } = await post(`${server.url}/tokenize`, { prompt: text, add_special_tokens: false });
  assert.deepEqual(json.tokens, model.tokenizer.encode(text, { addSpecialTokens: false }));
  assert.equal((await post(`${server.url}/detokenize`, { tokens: json.tokens })).json.prompt, text);
});
