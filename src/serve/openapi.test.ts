/** The OpenAPI document against the handlers: what its schemas accept and refuse, the handlers do too. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import Schema from "typebox/schema";
import type { LoadedModel } from "../runtime/loaded-model.js";
import { closeServers, loadStories, post, type RunningServer, startServer } from "./server.test.util.js";

interface Content {
  readonly content?: Readonly<Record<string, { readonly schema: object }>>;
}
interface Operation {
  readonly requestBody?: Content;
  readonly responses: Readonly<Record<string, Content>>;
}

let model: LoadedModel;
let server: RunningServer;
let paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>;

before(async () => {
  model = await loadStories();
  server = await startServer(model);
  ({ paths } = (await (await fetch(`${server.url}/openapi.json`)).json()) as { paths: typeof paths });
});
after(async () => {
  await closeServers();
  await model.close();
});

function fits(content: Content | undefined, type: string, value: unknown): boolean {
  const schema = content?.content?.[type]?.schema;
  assert.ok(schema, `no schema of ${type}`);
  return Schema.Compile(schema).Check(value);
}

const message = { role: "user", content: "Hello" };
const bodies: Readonly<Record<string, readonly object[]>> = {
  "/v1/completions": [
    { prompt: "Once" },
    { prompt: ["Once", "upon"], n: 2, max_tokens: 1 },
    { prompt: [5, 6, 7], max_tokens: 0, echo: true, logprobs: 0 },
    { prompt: [[5, 6], [7]], max_tokens: 1, echo: true, logprobs: 3, temperature: 0, seed: 1234 },
    { prompt: "Once", max_tokens: 2, stop: null, temperature: null, logit_bias: { 5: -100 }, user: "me" },
    { prompt: "Once", max_tokens: 2, stop: ["a", "b"], top_k: 3, min_p: 0.1, repetition_penalty: 1.1 },
    { prompt: "Once", model: "stories", max_tokens: 1, stream: false, stream_options: null },
    {},
    { prompt: 5 },
    { prompt: [] },
    { prompt: ["Once", 5] },
    { prompt: "Once", temperature: 3 },
    { prompt: "Once", max_tokens: 1.5 },
    { prompt: "Once", n: 0 },
    { prompt: "Once", nonsense: true },
    { prompt: "Once", best_of: 2 },
    { prompt: "Once", seed: "1" },
  ],
  "/v1/chat/completions": [
    { messages: [message], max_tokens: 1 },
    { messages: [message], max_completion_tokens: 2, logprobs: true, top_logprobs: 2, n: 2 },
    {
      messages: [{ role: "system", content: "Be kind." }, message],
      max_tokens: 1,
      response_format: { type: "text" },
    },
    {
      messages: [
        message,
        {
          role: "assistant",
          content: null,
          tool_calls: [{ id: "1", type: "function", function: { name: "f", arguments: "{}" } }],
        },
        { role: "tool", tool_call_id: "1", content: "7" },
      ],
      tools: [{ type: "function", function: { name: "f", parameters: { type: "object", properties: {} } } }],
      max_tokens: 1,
    },
    { messages: [] },
    { messages: [{ role: "user" }], max_tokens: 1 },
    { messages: [{ content: "Hello" }] },
    { messages: [message], response_format: { type: "json_object" } },
    { messages: [message], tool_choice: "required" },
    { messages: [message], top_logprobs: 21 },
    { messages: [message], max_tokens: 0 },
    { prompt: "Once" },
  ],
  "/tokenize": [{ prompt: "Once" }, { prompt: "", add_special_tokens: false }, { text: "Once" }, {}],
  "/detokenize": [{ tokens: [1, 2] }, { tokens: [] }, { tokens: ["a"] }, { tokens: [-1] }],
};

test("every POST of the document has examples here", () => {
  const posts = Object.keys(paths).filter((path) => paths[path]["post"]);
  assert.deepEqual(posts.sort(), Object.keys(bodies).sort());
});

for (const [path, examples] of Object.entries(bodies))
  test(`POST ${path}: the handler accepts what the document accepts, and answers as it says`, async () => {
    const operation = paths[path]["post"];
    const counts = { accepted: 0, refused: 0 };
    for (const body of examples) {
      const accepted = fits(operation.requestBody, "application/json", body);
      counts[accepted ? "accepted" : "refused"]++;
      const { status, json, text } = await post(server.url + path, body);
      assert.equal(status, accepted ? 200 : 400, `${JSON.stringify(body)}: ${text}`);
      assert.ok(
        fits(operation.responses[status], "application/json", json),
        `${JSON.stringify(body)}: ${text}`,
      );
    }
    assert.ok(counts.accepted > 1 && counts.refused > 1);
  });

test("streams send what the document says", async () => {
  for (const [path, request] of [
    ["/v1/completions", { prompt: "Once", logprobs: 1 }],
    ["/v1/chat/completions", { messages: [message], logprobs: true }],
  ] as const) {
    const options = { max_tokens: 3, stream: true, stream_options: { include_usage: true } };
    const { text } = await post(server.url + path, { ...request, ...options });
    const events = text.split("\n\n").filter((event) => event !== "");
    assert.equal(events.pop(), "data: [DONE]");
    assert.ok(events.length >= 4);
    for (const event of events)
      assert.ok(
        fits(
          paths[path]["post"].responses["200"],
          "text/event-stream",
          JSON.parse(event.slice("data: ".length)),
        ),
        event,
      );
  }
});

test("every GET answers as the document says", async () => {
  const gets = Object.keys(paths).filter((path) => paths[path]["get"]);
  assert.ok(gets.length >= 5);
  for (const path of gets) {
    const response = await fetch(server.url + path.replace("{model}", "stories"));
    assert.equal(response.status, 200, path);
    const type = response.headers.get("content-type")?.split(";")[0] ?? "";
    const value = type === "application/json" ? await response.json() : await response.text();
    assert.ok(fits(paths[path]["get"].responses["200"], type, value), path);
  }
});
