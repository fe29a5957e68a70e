/** Answers held to a format, through OpenAI's own client. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import OpenAI from "openai";
import type { LoadedModel } from "../runtime/loaded-model.js";
import { loadStories, type RunningServer, startServer } from "./server.test.util.js";

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

const SCHEMA = {
  type: "object",
  properties: {
    animal: { enum: ["cat", "dog", "bird"] },
    legs: { type: "integer", minimum: 0, maximum: 8 },
    words: { type: "array", items: { type: "string", maxLength: 5 }, minItems: 1, maxItems: 3 },
  },
  required: ["animal", "legs", "words"],
  additionalProperties: false,
};
const asked = (schema: Record<string, unknown>) =>
  ({ type: "json_schema", json_schema: { name: "animal", strict: true, schema } }) as const;
const request = {
  model: "stories",
  messages: [{ role: "user" as const, content: "Tell me about an animal." }],
  max_tokens: 120,
  temperature: 1,
};

function assertAnimal(text: string | null | undefined): void {
  const { animal, legs, words, ...rest } = JSON.parse(text ?? "");
  assert.ok(["cat", "dog", "bird"].includes(animal), text!);
  assert.ok(Number.isInteger(legs) && legs >= 0 && legs <= 8, text!);
  assert.ok(words.length >= 1 && words.length <= 3, text!);
  assert.ok(
    words.every((word: string) => [...word].length <= 5),
    text!,
  );
  assert.deepEqual(rest, {});
}

test("JSON that fits the schema: several answers at once, beside free text, streamed", async () => {
  const free = server.client.chat.completions.create({ ...request, seed: 1, max_tokens: 20 });
  const { choices } = await server.client.chat.completions.create({
    ...{ ...request, n: 3, seed: 5, logprobs: true },
    response_format: asked(SCHEMA),
  });
  for (const { message, finish_reason, logprobs } of choices) {
    assert.equal(finish_reason, "stop");
    assertAnimal(message.content);
    assert.equal(logprobs!.content!.map(({ token }) => token).join(""), message.content);
  }
  assert.equal(new Set(choices.map(({ message }) => message.content)).size, 3);
  const text = (await free).choices[0].message.content!;
  assert.throws(() => JSON.parse(text), SyntaxError);

  const stream = await server.client.chat.completions.create({
    ...{ ...request, seed: 5, stream: true as const },
    response_format: asked(SCHEMA),
  });
  let streamed = "";
  for await (const chunk of stream) streamed += chunk.choices[0].delta.content ?? "";
  assert.equal(streamed, choices[0].message.content);
});

test("a JSON object of any kind; the library does the same; too few tokens leave its beginning", async () => {
  const { choices } = await server.client.chat.completions.create({
    ...{ ...request, max_tokens: 6, temperature: 0 },
    response_format: { type: "json_object" },
  });
  assert.equal(choices[0].finish_reason, "length");
  assert.match(choices[0].message.content!, /^\{("|\})/);
  let text = "";
  let finish = "";
  for await (const event of model.generate("Once upon a time", {
    ...{ maxTokens: 100, temperature: 1, seed: 3 },
    format: { type: "schema", schema: SCHEMA },
  })) {
    text += event.text;
    if (event.type === "end") finish = event.finishReason;
  }
  assert.equal(finish, "stop");
  assertAnimal(text);
});

test("a schema that cannot be used is an error of the request, and the server goes on", async () => {
  const refused = (response_format: unknown, message: RegExp, param: string) =>
    assert.rejects(
      async () => {
        await server.client.chat.completions.create({
          ...request,
          response_format: response_format as OpenAI.ResponseFormatJSONObject,
        });
      },
      (error: unknown) => {
        assert.ok(error instanceof OpenAI.BadRequestError, String(error));
        assert.match(error.message, message);
        assert.equal(error.param, param);
        return true;
      },
    );
  const schema = "response_format.json_schema.schema";
  await refused(asked({ type: "integer", multipleOf: 3 }), /"multipleOf" cannot be enforced/, schema);
  await refused(asked({ type: "nonsense" }), /Unsupported type "nonsense"/, schema);
  await refused({ type: "json_schema" }, /Missing required parameter/, "response_format.json_schema");
  await refused({ type: "json_schema", json_schema: { name: "x" } }, /Missing required/, schema);
  const { choices } = await server.client.chat.completions.create({
    ...{ ...request, seed: 2 },
    response_format: asked(SCHEMA),
  });
  assertAnimal(choices[0].message.content);
});

test("a schema that takes long to compile holds up nobody who wants text", async () => {
  const properties = Object.fromEntries(
    Array.from({ length: 15 }, (_, i) => [`p${i}`, { type: "string", maxLength: 40 + i }]),
  );
  const kept = server.client.chat.completions.create({
    ...{ ...request, seed: 9, max_tokens: 200 },
    response_format: asked({ type: "array", items: { enum: ["a", "b"] }, minItems: 20, maxItems: 20 }),
  });
  const before = performance.now();
  const slow = server.client.chat.completions.create({
    ...{ ...request, max_tokens: 4 },
    response_format: asked({ type: "object", properties, required: Object.keys(properties) }),
  });
  const free = await server.client.chat.completions.create({ ...request, max_tokens: 8, temperature: 0 });
  const freeTook = performance.now() - before;
  assert.equal(free.usage!.completion_tokens, 8);
  await slow;
  const slowTook = performance.now() - before;
  assert.ok(freeTook < slowTook / 2, `${freeTook} ms beside ${slowTook} ms`);
  assert.equal(JSON.parse((await kept).choices[0].message.content!).length, 20);
});
