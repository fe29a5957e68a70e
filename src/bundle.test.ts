/** What a web page gets: no Node code in it, nothing left to resolve, and not too much of it. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const bundle = new URL("./browser/", import.meta.url);
/** Bare imports, CommonJS and names of Node's modules and globals. */
const FOREIGN =
  /\bnode:[a-z]|\brequire\(|\bprocess\.(versions|argv|env|std)|\bBuffer\.from\b|from"[^."]|import"[^."]/;
const BYTES = {
  "pocketllm.js": 215_000,
  "worker.js": 5_000,
  "grammar.js": 6_000,
  "kernels.wasm": 80_000,
  "xgrammar.js": 1_200_000,
};

function checkScript(text: string, name: string): void {
  const found = FOREIGN.exec(text);
  assert.equal(found && text.slice(found.index - 40, found.index + 40), null, name);
}

test("the bundle is one script, its workers, the kernels and the library of grammars", () => {
  assert.deepEqual(readdirSync(bundle).sort(), [
    "LICENSES.txt",
    "grammar.js",
    "kernels.fused.wasm",
    "kernels.single.fused.wasm",
    "kernels.single.wasm",
    "kernels.wasm",
    "pocketllm.js",
    "worker.js",
    "xgrammar.js",
  ]);
  for (const script of ["pocketllm.js", "worker.js", "grammar.js"])
    checkScript(readFileSync(new URL(script, bundle), "utf8"), script);
  for (const [file, limit] of Object.entries(BYTES)) {
    const bytes = readFileSync(new URL(file, bundle));
    assert.ok(bytes.length < limit, `${file} has ${bytes.length} bytes`);
    console.log(`${file}: ${bytes.length} bytes, ${gzipSync(bytes).length} with gzip`);
  }
});

test("the licences of what is inside lie beside it", () => {
  const text = readFileSync(new URL("LICENSES.txt", bundle), "utf8");
  for (const name of [
    "@huggingface/jinja",
    "@huggingface/tokenizers",
    "@noble/hashes",
    "@mlc-ai/web-xgrammar",
  ])
    assert.match(text, new RegExp(`^${name} \\d+\\.\\d+\\.\\d+ \\((MIT|Apache-2\\.0)\\)`, "m"));
});

test("an application that imports pocketllm bundles without Node code", async () => {
  const { outputFiles, warnings } = await build({
    stdin: {
      contents: 'import { loadModel } from "pocketllm"; globalThis.model = loadModel("./model/");',
      resolveDir: fileURLToPath(new URL("..", import.meta.url)),
    },
    bundle: true,
    write: false,
    format: "esm",
    platform: "browser",
    logLevel: "silent",
  });
  assert.deepEqual(warnings, []);
  assert.equal(outputFiles.length, 1);
  assert.ok(outputFiles[0].text.includes("kernels.wasm"));
  checkScript(outputFiles[0].text.replaceAll(/\s+/g, " "), "the application");
});
