/** What happens to requests that are cancelled, too many, too slow or hostile; and to those that run at the end. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";
import type { LoadedModel } from "../runtime/loaded-model.js";
import { closeServers, loadStories, post, slowed, startServer, until } from "./server.test.util.js";

let model: LoadedModel;
before(async () => {
  model = await loadStories();
});
after(async () => {
  await closeServers();
  await model.close();
});

const PROMPT = "Once upon a time";
const idle = async (server: { state(): Promise<{ running: number; waiting: number }> }) => {
  const { running, waiting } = await server.state();
  return running === 0 && waiting === 0;
};

test("a hundred clients that leave in the middle leave no slot taken", async () => {
  const server = await startServer(model, { parallel: 3 });
  let begun = 0;
  const leave = async (i: number) => {
    const controller = new AbortController();
    const stream = await server.client.completions.create(
      { model: "stories", prompt: PROMPT, max_tokens: 400, seed: i, stream: true, logit_bias: { 0: -100 } },
      { signal: controller.signal },
    );
    let pieces = 0;
    try {
      for await (const _ of stream) if (++pieces > i % 4) controller.abort();
    } catch (error) {
      assert.ok(error instanceof OpenAI.APIUserAbortError);
    }
    begun++;
  };
  for (let round = 0; round < 20; round++)
    await Promise.all([0, 1, 2, 3, 4].map((i) => leave(5 * round + i)));
  assert.equal(begun, 100);
  await until(() => idle(server));
  const { choices } = await server.client.completions.create({
    model: "stories",
    prompt: PROMPT,
    max_tokens: 3,
  });
  assert.equal(choices.length, 1);
  assert.deepEqual(server.defects, []);
  await server.close();
});

test("a client that leaves before its first token is not waited for", async () => {
  const server = await startServer(slowed(model, 50), { parallel: 1 });
  const first = server.client.completions.create({
    model: "stories",
    prompt: PROMPT,
    max_tokens: 20,
    seed: 1,
  });
  await until(async () => (await server.state()).running === 1);
  const gone = new AbortController();
  const waits = server.client.completions
    .create({ model: "stories", prompt: [PROMPT, "a", "b"], max_tokens: 100 }, { signal: gone.signal })
    .catch((error: unknown) => error);
  await until(async () => (await server.state()).waiting === 3);
  gone.abort();
  assert.ok((await waits) instanceof OpenAI.APIUserAbortError);
  await until(async () => (await server.state()).waiting === 0);
  await first;
  await server.close();
});

test("a full queue refuses with 429 and Retry-After; what was accepted is answered", async () => {
  const server = await startServer(slowed(model, 20), { parallel: 2, queue: 3 });
  const results = await Promise.all(
    Array.from({ length: 12 }, (_, seed) =>
      post(`${server.url}/v1/completions`, { prompt: PROMPT, max_tokens: 10, seed }),
    ),
  );
  const refused = results.filter(({ status }) => status === 429);
  assert.equal(results.filter(({ status }) => status === 200).length, 5);
  assert.equal(refused.length, 7);
  for (const { headers, json } of refused) {
    assert.ok(Number(headers.get("retry-after")) >= 1);
    assert.equal(json.error.type, "rate_limit_error");
    assert.equal(json.error.code, "queue_full");
  }
  await assert.rejects(
    Promise.all(
      [1, 2, 3, 4, 5, 6].map(() => server.client.completions.create({ model: "stories", prompt: PROMPT })),
    ),
    OpenAI.RateLimitError,
  );
  await until(() => idle(server));
  await server.close();
});

test("shutdown answers what runs, drops what waits, refuses what comes", async () => {
  const server = await startServer(slowed(model, 20), { parallel: 1 });
  const request = { prompt: PROMPT, max_tokens: 20, temperature: 0 };
  const runs = post(`${server.url}/v1/completions`, request);
  await until(async () => (await server.state()).running === 1);
  const waits = post(`${server.url}/v1/completions`, request);
  await until(async () => (await server.state()).waiting === 1);
  const closed = server.close();
  assert.equal((await waits).status, 503);
  const { status, json } = await runs;
  assert.equal(status, 200);
  assert.equal(json.usage.completion_tokens, 20);
  await closed;
  await assert.rejects(fetch(`${server.url}/health`));
});

test("shutdown gives up on what takes longer than its grace", async () => {
  const server = await startServer(slowed(model, 50), { parallel: 1 });
  const runs = post(`${server.url}/v1/completions`, {
    prompt: PROMPT,
    max_tokens: 400,
    logit_bias: { 0: -100 },
  });
  await until(async () => (await server.state()).running === 1);
  await server.close(0.1);
  const { status, json } = await runs;
  assert.equal(status, 503);
  assert.equal(json.error.code, "shutting_down");
});

test("a request that takes too long ends: 504, or an error in its stream", async () => {
  const server = await startServer(slowed(model, 50), { timeout: 0.3 });
  const request = { prompt: PROMPT, max_tokens: 400, logit_bias: { 0: -100 } };
  const [whole, streamed] = await Promise.all([
    post(`${server.url}/v1/completions`, request),
    post(`${server.url}/v1/completions`, { ...request, stream: true }),
  ]);
  assert.equal(whole.status, 504);
  assert.match(streamed.text, /"code":"timeout"/);
  assert.ok(streamed.text.endsWith("data: [DONE]\n\n"));
  await until(() => idle(server));
  await server.close();
});

test("an API key is asked of everything but /health", async () => {
  const server = await startServer(model, { apiKey: "right" });
  const list = (authorization?: string) =>
    fetch(`${server.url}/v1/models`, authorization === undefined ? {} : { headers: { authorization } });
  assert.equal((await list("Bearer right")).status, 200);
  for (const wrong of [undefined, "Bearer wrong", "Bearer ", "right", "Basic right", "Bearer right "]) {
    const response = await list(wrong);
    // HTTP strips the space after a header's value.
    assert.equal(response.status, wrong === "Bearer right " ? 200 : 401, wrong);
  }
  for (const path of ["/metrics", "/openapi.json", "/nothing"])
    assert.equal((await fetch(server.url + path)).status, 401, path);
  assert.equal((await fetch(`${server.url}/health`)).status, 200);
  const other = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(other.models.list(), OpenAI.AuthenticationError);
  await server.close();
});

test("other origins may call only when they are named", async () => {
  const ask = async (cors?: string) => {
    const server = await startServer(model, { cors });
    const response = await fetch(`${server.url}/v1/models`, { headers: { origin: "https://example.org" } });
    await response.arrayBuffer();
    await server.close();
    return response.headers.get("access-control-allow-origin");
  };
  assert.equal(await ask(), null);
  assert.equal(await ask("https://example.org"), "https://example.org");
});

test("hostile bodies are refused with 4xx, and the server lives", async () => {
  const server = await startServer(model, { bodyLimit: 2 ** 20 });
  const path = `${server.url}/v1/completions`;
  const chat = `${server.url}/v1/chat/completions`;
  const message = { role: "user", content: "Hello" };
  const bodies: [string, unknown, number][] = [
    [path, "", 400],
    [path, "null", 400],
    [path, "[]", 400],
    [path, '"text"', 400],
    [path, '{"prompt": "a"', 400],
    [path, "[".repeat(500_000), 400],
    [path, `{"prompt":${"[".repeat(5000)}${"]".repeat(5000)}}`, 400],
    [path, '{"a":'.repeat(100_000), 400],
    [path, new Blob([Buffer.from('{"prompt":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')]), 400],
    [path, '{"prompt":"a","__proto__":{"admin":true}}', 400],
    [path, '{"prompt":"a","constructor":{"prototype":{}}}', 400],
    [path, { prompt: "a", seed: 1.5 }, 400],
    [path, '{"prompt":"a","max_tokens":1e400}', 400],
    [path, '{"prompt":"a","temperature":1e400}', 400],
    [path, '{"prompt":"a","temperature":NaN}', 400],
    [path, { prompt: "a", max_tokens: -1 }, 400],
    [path, { prompt: "a", max_tokens: 1e12 }, 400],
    [path, { prompt: "a", max_tokens: 1e9 }, 400],
    [path, { prompt: "a", max_tokens: "5" }, 400],
    [path, { prompt: "a", temperature: -0.1 }, 400],
    [path, { prompt: "a", top_p: 0 }, 400],
    [path, { prompt: "a", n: 1e6 }, 400],
    [path, { prompt: "a", logprobs: 1000 }, 400],
    [path, { prompt: "a", stop: Array(1000).fill("x") }, 400],
    [path, { prompt: "a", logit_bias: { x: 1 } }, 400],
    [path, { prompt: "a", logit_bias: { 1: 1e9 } }, 400],
    [path, { prompt: "a", logit_bias: { __proto__: null, "-1": 1 } }, 400],
    [path, { prompt: "a", suffix: "b" }, 400],
    [path, { prompt: [] }, 400],
    [path, { prompt: [[]] }, 400],
    [path, { prompt: [[1], "a"] }, 400],
    [path, { prompt: [-1] }, 400],
    [path, { prompt: [1e300] }, 400],
    [path, { prompt: [2 ** 31 - 1] }, 400],
    [path, { prompt: Array(1000).fill("a") }, 400],
    [path, { prompt: "word ".repeat(20_000) }, 400],
    [path, { prompt: "x".repeat(2 ** 20) }, 413],
    [chat, { messages: [] }, 400],
    [chat, { messages: "hello" }, 400],
    [chat, { messages: [{ role: "god", content: "x" }] }, 400],
    [
      chat,
      { messages: [{ ...message, content: [{ type: "image_url", image_url: { url: "http://x/" } }] }] },
      400,
    ],
    [chat, { messages: [message], tools: [{ type: "function", function: { name: 1 } }] }, 400],
    [chat, { messages: [message], functions: [] }, 400],
    [chat, { messages: [message], response_format: { type: "json_schema", json_schema: {} } }, 400],
    [`${server.url}/detokenize`, { tokens: [2 ** 31 - 1] }, 400],
    [`${server.url}/tokenize`, { prompt: 5 }, 400],
  ];
  for (const [url, body, status] of bodies) {
    const answer = await post(url, body);
    const label = (typeof body === "string" ? body : JSON.stringify(body)).slice(0, 80);
    assert.equal(answer.status, status, `${label}: ${answer.text.slice(0, 200)}`);
    assert.equal(typeof answer.json.error.message, "string", label);
  }
  assert.equal(
    (await post(path, "a=b", { "content-type": "application/x-www-form-urlencoded" })).status,
    415,
  );
  assert.equal((await fetch(`${server.url}/%ff`)).status, 400);
  assert.equal((await fetch(path)).status, 405);
  assert.equal((await post(path, { prompt: PROMPT, max_tokens: 2 })).status, 200);
  assert.deepEqual(server.defects, []);
  await until(() => idle(server));
  await server.close();
});

test("a body of 100 MB is refused by its announced length, before it is sent", async () => {
  const server = await startServer(model);
  const answer = await rawRequest(server.url, [
    "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 104857600\r\n\r\n",
  ]);
  assert.match(answer, /^HTTP\/1\.1 413 /);
  const endless = await rawRequest(
    server.url,
    [
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
      ...Array(100).fill(`100000\r\n${" ".repeat(2 ** 20)}\r\n`),
    ],
    0,
  );
  // The connection is reset while the client still sends, which may swallow the answer.
  assert.match(endless, /^(HTTP\/1\.1 413 |$)/);
  assert.deepEqual(await server.state(), { status: "ok", running: 0, waiting: 0 });
  await server.close();
});

test("clients that send slowly, or something that is not HTTP, are cut off; others are answered meanwhile", async () => {
  const server = await startServer(model, { receiveTimeout: 1 });
  const slow = Array.from({ length: 50 }, () =>
    rawRequest(server.url, ["POST /v1/completions HTTP/1.1\r\n", ..."Host: x\r\nX-Slow: yes".split("")], 200),
  );
  assert.equal((await post(`${server.url}/v1/completions`, { prompt: PROMPT, max_tokens: 2 })).status, 200);
  for (const answer of await Promise.all(slow)) assert.match(answer, /^HTTP\/1\.1 408 /);
  assert.match(await rawRequest(server.url, ["\x16\x03\x01 hello\r\n\r\n"]), /^HTTP\/1\.1 400 /);
  assert.match(
    await rawRequest(server.url, [`GET /health HTTP/1.1\r\nHost: x\r\nX: ${"y".repeat(100_000)}\r\n\r\n`]),
    /^HTTP\/1\.1 431 /,
  );
  assert.equal((await server.state()).running, 0);
  await server.close();
});

/** Sends pieces on a socket, `pause` milliseconds apart; resolves with what came back when the server closes it. */
async function rawRequest(url: string, pieces: readonly string[], pause = 0): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  let answer = "";
  socket.on("data", (data) => (answer += data.toString()));
  // The server may close while we still send.
  socket.on("error", () => {});
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  for (const piece of pieces) {
    if (socket.destroyed || answer !== "") break;
    socket.write(piece, "latin1");
    await sleep(pause);
  }
  // Not only for an answer: where the connection is reset there will be none, and waiting would have no end.
  await until(() => answer !== "" || socket.destroyed);
  socket.destroy();
  await closed;
  return answer;
}
