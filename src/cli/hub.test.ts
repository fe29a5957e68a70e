/** Models of the hub as a user names them: the story model behind a hub on this machine, each test with a fresh cache. */
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { FakeHub } from "../hub/fake-hub.test.util.js";
import { loadModel } from "../runtime/load.js";
import { POCKET_STORIES } from "../runtime/real-models.test.util.js";
import { errorLines, folderHashes, run, start, succeed } from "./run.test.util.js";

const hub = new FakeHub();
const temporary = mkdtempSync(join(tmpdir(), "pocketllm-hub-cli-"));
const STORIES = join(POCKET_STORIES, "../../examples/held-out-stories.txt");
const PROMPT = ["--prompt", "Once upon a time", "--max-tokens", "8", "--threads", "1", "--json"];
let commit = "";
let caches = 0;

function filesOf(folder: string): Record<string, Uint8Array> {
  return Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]));
}

before(async () => {
  await hub.listen();
  commit = hub.put("models/pocket/stories", filesOf(POCKET_STORIES));
});
after(async () => {
  await hub.close();
  rmSync(temporary, { recursive: true });
});
beforeEach(() => {
  process.env["HF_ENDPOINT"] = hub.endpoint;
  process.env["HF_HOME"] = join(temporary, `home-${caches++}`);
  delete process.env["HF_HUB_OFFLINE"];
  hub.intercept = () => false;
  hub.takeDownloads();
});

async function textOf(model: string): Promise<string> {
  const { stdout } = await succeed("generate", model, ...PROMPT);
  return JSON.parse(stdout).text;
}

test("generate: the first time it is downloaded, then asked after, then with the hub down and offline", async () => {
  const text = await textOf(POCKET_STORIES);
  assert.equal(hub.requests.length, 0);
  assert.equal(await textOf("pocket/stories"), text);
  assert.deepEqual(
    hub.takeDownloads().sort(),
    readdirSync(POCKET_STORIES)
      .filter((name) => name !== "training.json")
      .sort(),
  );
  assert.equal(await textOf("pocket/stories@main"), text);
  assert.equal(await textOf(`pocket/stories@${commit}`), text);
  assert.deepEqual(hub.takeDownloads(), []);
  await hub.close();
  try {
    const { stdout, stderr } = await run("generate", "pocket/stories", ...PROMPT);
    assert.equal(JSON.parse(stdout).text, text);
    assert.match(stderr, /cannot be reached.*going on with what the cache has/);
    process.env["HF_HUB_OFFLINE"] = "1";
    assert.equal(await textOf("pocket/stories"), text);
  } finally {
    await hub.listen();
  }
});

test("eval: by name as by path; the result says which commit", async () => {
  const text = ["--text", STORIES, "--context", "128", "--windows", "1", "--threads", "1", "--json"];
  const here = JSON.parse((await succeed("eval", POCKET_STORIES, ...text)).stdout);
  const { stdout } = await succeed(...["eval", "pocket/stories", "--reference", "pocket/stories", ...text]);
  const report = JSON.parse(stdout);
  assert.equal(report.perplexity, here.perplexity);
  assert.deepEqual(report.model, { ...here.model, path: "pocket/stories", commit });
  assert.deepEqual(report.reference, report.model);
});

test("compress by name gives the same bytes; its folder goes by name, too, and inspect and verify", async () => {
  const options = ["--data-free", "--target", "6x", "--workers", "1"];
  const [here, there] = [join(temporary, "here"), join(temporary, "there")];
  await succeed("compress", POCKET_STORIES, "--out", here, ...options);
  await succeed("compress", "pocket/stories", "--out", there, ...options);
  assert.deepEqual(folderHashes(there), folderHashes(here));
  hub.put("models/pocket/small", {
    ...filesOf(here),
    "README.md": "# Not needed",
    "other.safetensors": "no",
  });
  hub.takeDownloads();
  assert.equal(await textOf("pocket/small"), await textOf(here));
  assert.deepEqual(hub.takeDownloads().sort(), readdirSync(here).sort());
  await succeed("verify", "pocket/small");
  const sizes = JSON.parse((await succeed("inspect", "pocket/small", "--json")).stdout);
  assert.equal(sizes.format, "pocketllm");
});

test("killed on the way: nothing looks whole, and the next start goes on from there", async () => {
  const weights = readFileSync(join(POCKET_STORIES, "model.safetensors"));
  hub.intercept = (url, _, response) => {
    if (!url.pathname.startsWith("/blob/")) return false;
    response.writeHead(200, { "content-length": weights.length });
    response.write(weights.subarray(0, 3_000_000));
    return true;
  };
  const { child, finished } = start(["generate", "pocket/stories", ...PROMPT]);
  const blobs = join(process.env["HF_HOME"]!, "hub", "models--pocket--stories", "blobs");
  const parts = () => {
    try {
      return readdirSync(blobs).filter((name) => name.length > 64);
    } catch {
      return [];
    }
  };
  const size = () => parts().reduce((sum, name) => sum + readFileSync(join(blobs, name)).length, 0);
  for (let i = 0; i < 600 && size() < 3_000_000; i++) await new Promise((done) => setTimeout(done, 50));
  child.kill("SIGKILL");
  assert.equal((await finished).signal, "SIGKILL");
  assert.equal(size(), 3_000_000);
  assert.ok(parts().every((name) => name.endsWith(".incomplete")));
  process.env["HF_HUB_OFFLINE"] = "1";
  const offline = await run("generate", "pocket/stories", ...PROMPT);
  assert.equal(offline.code, 1);
  assert.match(offline.stderr, /not in the cache/);
  delete process.env["HF_HUB_OFFLINE"];
  hub.intercept = () => false;
  hub.requests.length = 0;
  assert.equal(await textOf("pocket/stories"), await textOf(POCKET_STORIES));
  assert.ok(hub.requests.some(({ range }) => range === "bytes=3000000-"));
  assert.deepEqual(parts(), []);
});

test("Ctrl-C on the way ends at once with one line", async () => {
  hub.intercept = (url, _, response) => {
    if (!url.pathname.startsWith("/blob/")) return false;
    response.writeHead(200);
    response.write("x");
    setTimeout(() => child.kill("SIGINT"), 200);
    return true;
  };
  const { child, finished } = start(["generate", "pocket/stories", ...PROMPT]);
  const ended = await finished;
  assert.equal(ended.code, 1);
  assert.deepEqual(errorLines(ended), ["pocketllm: interrupted"]);
});

test("what is not there is one line on stderr", async () => {
  const ended = await run("generate", "pocket/absent", ...PROMPT);
  assert.equal(ended.code, 1);
  assert.match(
    errorLines(ended).join("\n"),
    /^pocketllm: pocket\/absent: no such file or folder here.*404\): check the name$/,
  );
});

test("loadModel takes a name", async () => {
  const seen: string[] = [];
  const model = await loadModel("pocket/stories", {
    threads: 1,
    onProgress: ({ stage }) => seen.push(stage),
  });
  try {
    assert.ok(seen.includes("downloading pocket/stories"));
    assert.equal(model.config.vocabularySize > 0, true);
  } finally {
    await model.close();
  }
});
