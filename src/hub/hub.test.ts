/** Models of the hub, from a hub on this machine: what is fetched, kept, gone on with and refused. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { InputError } from "../errors.js";
import { FakeHub, sendJson, treeEntry } from "./fake-hub.test.util.js";
import { localModel } from "./local-model.js";

const hub = new FakeHub();
const WEIGHTS = Buffer.alloc(400_000, "weights ");
const MODEL = {
  "README.md": "# A model",
  "config.json": "{}",
  "generation_config.json": "{ }",
  "model.safetensors": WEIGHTS,
  "consolidated.safetensors": "the same again",
  "onnx/model.onnx": "no",
  "pytorch_model.bin": "no",
  "special_tokens_map.json": "{  }",
  "tokenizer.json": '{"a":1}',
  "tokenizer.model": "no",
  "tokenizer_config.json": '{"b":2}',
  "chat_template.jinja": "{{ x }}",
};
let home = "";

before(async () => {
  await hub.listen();
  hub.put("models/org/small", MODEL);
});
after(() => hub.close());
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "pocketllm-hub-"));
  for (const name of ["HF_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN_PATH"])
    delete process.env[name];
  process.env["HF_HOME"] = home;
  process.env["HF_ENDPOINT"] = hub.endpoint;
  hub.intercept = () => false;
  hub.takeDownloads();
});

const cached = (repository: string) => join(home, "hub", repository);

async function refused(source: string, message: RegExp): Promise<void> {
  await assert.rejects(localModel(source), (error: Error) => {
    assert.ok(error instanceof InputError, error.stack);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
}

/** Nothing in the cache is named as if it were whole. */
function assertNothingWhole(repository: string): void {
  const blobs = join(cached(repository), "blobs");
  const whole = existsSync(blobs) ? readdirSync(blobs).filter((name) => !name.endsWith(".incomplete")) : [];
  assert.deepEqual(
    whole.filter((name) => name.length === 64),
    [],
  );
  assert.ok(!existsSync(join(cached(repository), "refs", "main")));
}

test("what exists here is meant, and a model is fetched once, without what it does not need", async () => {
  const commit = hub.repositories.get("models/org/small")!.branches.get("main")!;
  const { path, commit: found } = await localModel("org/small");
  assert.equal(found, commit);
  assert.equal(path, join(cached("models--org--small"), "snapshots", commit));
  const expected = Object.keys(MODEL).filter((name) => !/README|consolidated|onnx|\.bin|\.model$/.test(name));
  assert.deepEqual(readdirSync(path).sort(), expected.sort());
  assert.deepEqual(readFileSync(join(path, "model.safetensors")), WEIGHTS);
  assert.equal(readFileSync(join(cached("models--org--small"), "refs", "main"), "utf8"), commit);
  assert.deepEqual(hub.takeDownloads().sort(), expected.sort());
  assert.equal((await localModel(`org/small@${commit}`)).path, path);
  assert.equal((await localModel("org/small")).path, path);
  assert.deepEqual(hub.takeDownloads(), []);

  const here = mkdtempSync(join(tmpdir(), "pocketllm-here-"));
  mkdirSync(join(here, "org", "small"), { recursive: true });
  const old = process.cwd();
  process.chdir(here);
  try {
    assert.deepEqual(await localModel("org/small"), { path: "org/small" });
  } finally {
    process.chdir(old);
  }
  assert.equal(hub.requests.length, 0);
});

test("offline and with the hub down it comes from the cache; a name that is not there is said so", async () => {
  const first = await localModel("org/small");
  hub.requests.length = 0;
  process.env["HF_HUB_OFFLINE"] = "1";
  assert.deepEqual(await localModel("org/small"), first);
  assert.equal(hub.requests.length, 0);
  await refused(
    "org/other",
    /org\/other: no such file or folder here, and not in the cache .*HF_HUB_OFFLINE/,
  );
  delete process.env["HF_HUB_OFFLINE"];
  await hub.close();
  try {
    const notes: string[] = [];
    assert.deepEqual(await localModel("org/small", { onNote: (line) => notes.push(line) }), first);
    assert.match(notes.join("\n"), /cannot be reached \(ECONNREFUSED\).*going on with what the cache has/);
    await refused("org/other", /cannot be reached \(ECONNREFUSED\): no network\? A local folder/);
  } finally {
    await hub.listen();
  }
});

test("a new commit is fetched with what it shares from before", async () => {
  hub.put("models/org/moves", { "config.json": "{}", "model.safetensors": WEIGHTS });
  const old = await localModel("org/moves");
  hub.takeDownloads();
  hub.put("models/org/moves", { "config.json": '{"new":1}', "model.safetensors": WEIGHTS });
  const now = await localModel("org/moves");
  assert.notEqual(now.commit, old.commit);
  assert.deepEqual(hub.takeDownloads(), ["config.json"]);
  assert.equal(readFileSync(join(now.path, "config.json"), "utf8"), '{"new":1}');
  assert.equal(readFileSync(join(old.path, "config.json"), "utf8"), "{}");
});

/** The first bytes of a file, then the connection ends. */
function hangUp(response: ServerResponse, bytes: Uint8Array, status = 200): void {
  response.writeHead(status, { "content-length": WEIGHTS.length });
  response.write(bytes, () => setTimeout(() => response.destroy(), 20));
}

test("a connection that breaks on the way is gone on with from where it broke", async () => {
  let broken = 0;
  hub.intercept = (url, request, response) => {
    if (!url.pathname.startsWith("/blob/") || request.headers.range !== undefined) return false;
    broken++;
    hangUp(response, WEIGHTS.subarray(0, 150_000));
    return true;
  };
  const { path } = await localModel("org/small");
  assert.equal(broken, 1);
  assert.ok(hub.requests.some(({ range }) => range === "bytes=150000-"));
  assert.deepEqual(readFileSync(join(path, "model.safetensors")), WEIGHTS);
});

test("a download that was stopped leaves nothing whole, and the next goes on with it", async () => {
  const abort = new AbortController();
  hub.intercept = (url, _, response) => {
    if (!url.pathname.startsWith("/blob/")) return false;
    response.writeHead(200, { "content-length": WEIGHTS.length });
    response.write(WEIGHTS.subarray(0, 100_000));
    setTimeout(() => abort.abort(new InputError("interrupted")), 100);
    return true;
  };
  const seen: number[] = [];
  await assert.rejects(
    localModel("org/small", { signal: abort.signal, onProgress: ({ done }) => seen.push(done) }),
    /interrupted/,
  );
  assertNothingWhole("models--org--small");
  assert.ok(seen.at(-1)! >= 100_000);
  // A server that knows no ranges: what is there is skipped, not written twice.
  hub.intercept = (url, _, response) => {
    if (!url.pathname.startsWith("/blob/")) return false;
    response.writeHead(200).end(WEIGHTS);
    return true;
  };
  hub.requests.length = 0;
  const { path } = await localModel("org/small");
  assert.ok(hub.requests.some(({ range }) => range === "bytes=100000-"));
  assert.deepEqual(readFileSync(join(path, "model.safetensors")), WEIGHTS);
  assert.ok(
    readdirSync(join(cached("models--org--small"), "blobs")).every((name) => !name.includes("incomplete")),
  );
});

test("bytes that do not match the listed hash are refused; a bad part is thrown away", async () => {
  const wrong = Buffer.from(WEIGHTS);
  wrong[200_000] ^= 1;
  hub.intercept = (url, _, response) => {
    if (!url.pathname.startsWith("/blob/")) return false;
    response.writeHead(200).end(wrong);
    return true;
  };
  await refused("org/small", /model\.safetensors does not match the SHA-256 that the hub lists/);
  assertNothingWhole("models--org--small");
  hub.intercept = (url, _, response) => {
    if (!url.pathname.endsWith("config.json")) return false;
    response.writeHead(200).end("[]");
    return true;
  };
  hub.put("models/org/changed", { "config.json": "{}", "model.safetensors": WEIGHTS });
  await refused("org/changed", /config\.json does not match the hash that the hub lists/);
  // Part of it is kept from before, and wrong: it is fetched anew.
  const blobs = join(cached("models--org--small"), "blobs");
  const { lfs } = treeEntry("model.safetensors", WEIGHTS) as { lfs: { oid: string } };
  writeFileSync(join(blobs, `${lfs.oid}.999999999-0.pocketllm.incomplete`), wrong.subarray(0, 300_000));
  hub.intercept = () => false;
  const { path } = await localModel("org/small");
  assert.deepEqual(readFileSync(join(path, "model.safetensors")), WEIGHTS);
});

test("more bytes than listed, and fewer, are refused", async () => {
  hub.intercept = (url, _, response) => {
    if (!url.pathname.startsWith("/blob/")) return false;
    response.writeHead(200).end(Buffer.concat([WEIGHTS, WEIGHTS]));
    return true;
  };
  await refused("org/small", /model\.safetensors has more than the 400000 bytes that the hub lists/);
  hub.intercept = (url, request, response) => {
    if (!url.pathname.startsWith("/blob/")) return false;
    const start = Number(/\d+/.exec(request.headers.range ?? "0")![0]);
    response
      .writeHead(206, { "content-range": `bytes ${start}-` })
      .end(start === 0 ? WEIGHTS.subarray(0, 9) : "");
    return true;
  };
  await refused("org/small", /download of model\.safetensors ended after \d+ of 400000 bytes; run again/);
  assertNothingWhole("models--org--small");
});

test("HTTP errors are one line that says what to do", async () => {
  await refused("org/absent", /no such file or folder here, and no such model on the hub \(HTTP 404\)/);
  await refused("org/small@absent", /org\/small@absent: the model has no revision absent/);
  hub.put("models/org/closed", MODEL);
  hub.repositories.get("models/org/closed")!.token = "hf_right";
  await refused("org/closed", /private or does not exist \(HTTP 401\).*set HF_TOKEN/);
  process.env["HF_TOKEN"] = "hf_wrong";
  await refused("org/closed", /the token of HF_TOKEN may not read it/);
  hub.repositories.get("models/org/closed")!.gated = true;
  await refused(
    "org/closed",
    /is gated \(HTTP 403\): ask for access at http.*\/org\/closed, then set HF_TOKEN/,
  );
  delete process.env["HF_TOKEN"];
  writeFileSync(join(home, "token"), "hf_right\n");
  hub.requests.length = 0;
  await localModel("org/closed");
  // The token is the hub's: the server that files come from does not get it.
  for (const { url, token } of hub.requests) assert.equal(token, !url.startsWith("/blob/"), url);
  for (const [status, message] of [
    [500, /the hub fails \(HTTP 500\): try again later/],
    [429, /asked too often \(HTTP 429\)/],
    [418, /the hub answered HTTP 418/],
  ] as const) {
    hub.intercept = (_, __, response) => {
      response.writeHead(status).end();
      return true;
    };
    await refused("org/unknown", message);
  }
  process.env["HF_TOKEN"] = "two words";
  await refused("org/small", /HF_TOKEN is no token/);
});

test("what passes by itself is asked for again", async () => {
  let failures = 0;
  hub.intercept = (url, _, response) => {
    if (!url.pathname.includes("/tree/") || failures++ > 0) return false;
    response.writeHead(503).end();
    return true;
  };
  await localModel("org/small");
  assert.ok(failures > 1);
});

test("hostile listings: paths that lead out, sizes, hashes, no end, another server, no JSON", async () => {
  const answerTree = (answer: (response: ServerResponse, url: URL) => void) => {
    hub.intercept = (url, _, response) => {
      if (!url.pathname.includes("/tree/")) return false;
      answer(response, url);
      return true;
    };
  };
  const good = treeEntry("config.json", Buffer.from("{}"));
  for (const path of ["../config.json", "/etc/x", "a/../../b", "C:\\x", "a\\..\\b", "a//b", "a\u001b[2J"]) {
    answerTree((response) => sendJson(response, [{ ...good, path }]));
    await refused("org/small", /the hub lists a file outside of the repository: "[ -~]+"$/);
  }
  for (const bad of [
    { ...good, size: -1 },
    { ...good, size: 1e300 },
    { ...good, oid: "../../x" },
    { ...good, lfs: { oid: "../../../x", size: 2 } },
    { ...good, path: 3 },
    null,
  ]) {
    answerTree((response) => sendJson(response, [bad]));
    await refused("org/small", /the answer of the hub makes no sense/);
  }
  answerTree((response) => response.writeHead(200).end("<html>"));
  await refused("org/small", /the answer of the hub makes no sense: is HF_ENDPOINT a hub/);
  answerTree((response) => sendJson(response, [], { link: `<${hub.endpoint}/api/tree/>; rel="next"` }));
  await refused("org/small", /list of files does not end/);
  answerTree((response) => sendJson(response, [good], { link: '<http://example.invalid/>; rel="next"' }));
  await refused("org/small", /leads to another server/);
  answerTree((response) => sendJson(response, Array(20_001).fill({ ...good, type: "directory" })));
  await refused("org/small", /lists more than 20000 files/);
  answerTree((response) => sendJson(response, ["x".repeat(9 * 2 ** 20)]));
  await refused("org/small", /an answer of the hub has more than 8388608 bytes/);
  const huge = { ...treeEntry("model.safetensors", WEIGHTS), lfs: { oid: "1".repeat(64), size: 2 ** 43 } };
  answerTree((response) => sendJson(response, [good, huge]));
  await refused("org/small", /MB are to be downloaded, and .* has room for/);
  assertNothingWhole("models--org--small");
});

test("shards by their index; a manifest's files; nothing usable", async () => {
  const index = JSON.stringify({ weight_map: { a: "m-1.safetensors", b: "m-2.safetensors", c: "../x" } });
  hub.put("models/org/shards", {
    "config.json": "{}",
    "model.safetensors.index.json": index,
    "m-1.safetensors": "1",
    "m-2.safetensors": "2",
    "m-3.safetensors": "3",
  });
  const shards = await localModel("org/shards");
  assert.deepEqual(readdirSync(shards.path).sort(), [
    "config.json",
    "m-1.safetensors",
    "m-2.safetensors",
    "model.safetensors.index.json",
  ]);
  hub.put("models/org/pocket", {
    "pocketllm.json": JSON.stringify({
      files: { "config.json": {}, "model.safetensors": {}, "adapter_model.safetensors": {} },
    }),
    "adapter_model.safetensors": "a",
    "config.json": "{}",
    "model.safetensors": "w",
    "other.safetensors": "o",
  });
  const pocket = await localModel("org/pocket");
  assert.deepEqual(readdirSync(pocket.path).sort(), [
    "adapter_model.safetensors",
    "config.json",
    "model.safetensors",
    "pocketllm.json",
  ]);
  hub.put("models/org/pickle", { "config.json": "{}", "pytorch_model.bin": "x" });
  await refused("org/pickle", /has no model that is read.*pytorch_model\.bin is a Python pickle/);
  hub.put("models/org/broken", { "config.json": "{}", "model.safetensors.index.json": "{" });
  await refused("org/broken", /model\.safetensors\.index\.json is not valid JSON/);
});

test("GGUF: the only one, one by name, several", async () => {
  hub.put("models/org/one", { "config.json": "{}", "m.Q8_0.gguf": "GGUF", "README.md": "" });
  const one = await localModel("org/one");
  assert.equal(readFileSync(one.path, "latin1"), "GGUF");
  assert.match(one.path, /m\.Q8_0\.gguf$/);
  hub.put("models/org/two", { "a.gguf": "GGUFa", "b.gguf": "GGUFb", "sub/c.gguf": "GGUFc" });
  await refused("org/two", /has 2 GGUF files: give one as org\/two\/a\.gguf; there are a\.gguf, b\.gguf/);
  assert.equal(readFileSync((await localModel("org/two/b.gguf@main")).path, "latin1"), "GGUFb");
  assert.equal(readFileSync((await localModel("org/two/sub/c.gguf")).path, "latin1"), "GGUFc");
  await refused("org/two/d.gguf", /the repository has no file d\.gguf/);
  process.env["HF_HUB_OFFLINE"] = "1";
  assert.equal(readFileSync((await localModel("org/two/sub/c.gguf")).path, "latin1"), "GGUFc");
  await refused("org/two/a.gguf", /a\.gguf is not in the cache/);
  assert.equal((await localModel("org/one")).path, one.path);
});
