/** The library in an application that Vite builds, and in Vite's own server. */
import assert from "node:assert/strict";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Browser } from "playwright-core";
import * as vite from "vite";
import { compress } from "./compress/index.js";
import { launchChromium, noChromium } from "./runtime/chromium.test.util.js";
import { loadModel } from "./runtime/load.js";
import { POCKET_STORIES } from "./runtime/real-models.test.util.js";

const PROMPT = "Once upon a time";
const SCHEMA = {
  type: "object",
  properties: { n: { type: "integer", minimum: 0, maximum: 9 } },
  required: ["n"],
  additionalProperties: false,
};
const MAIN = `
import { loadModel } from "pocketllm";
const texts = [];
try {
  const model = await loadModel("/model/", { threads: 2 });
  for (const format of [undefined, { type: "schema", schema: ${JSON.stringify(SCHEMA)} }]) {
    let text = "";
    for await (const event of model.generate(${JSON.stringify(PROMPT)}, { maxTokens: 24, format })) text += event.text;
    texts.push(text);
  }
  await model.close();
} catch (error) {
  texts.push(String(error));
}
globalThis.texts = texts;
`;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address ? address.port : 0;
}

describe("in an application of Vite's", { skip: noChromium }, () => {
  let root: string;
  let browser: Browser;
  let expected = "";
  let settings: vite.InlineConfig;

  before(async () => {
    root = await mkdtemp(join(tmpdir(), "pocketllm-vite-"));
    const installed = join(root, "node_modules/pocketllm");
    await mkdir(installed, { recursive: true });
    const own = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url));
    await cp(own("package.json"), join(installed, "package.json"));
    await cp(own("dist/browser"), join(installed, "dist/browser"), { recursive: true });
    await writeFile(join(root, "package.json"), '{ "type": "module", "dependencies": { "pocketllm": "*" } }');
    await writeFile(join(root, "index.html"), '<script type="module" src="/main.js"></script>');
    await writeFile(join(root, "main.js"), MAIN);
    const model = join(root, "public/model");
    await mkdir(join(root, "public"));
    await compress({ source: POCKET_STORIES, out: model, target: { kind: "ratio", ratio: 6 } });
    const here = await loadModel(model, { threads: 1 });
    for await (const { text } of here.generate(PROMPT, { maxTokens: 24 })) expected += text;
    await here.close();
    const headers = {
      "Cross-Origin-Opener-Policy": "same-origin",
      "Cross-Origin-Embedder-Policy": "require-corp",
    };
    const place = { host: "127.0.0.1", strictPort: true, headers };
    settings = {
      ...{ root, configFile: false, logLevel: "error" },
      server: { ...place, port: await freePort() },
      preview: { ...place, port: await freePort() },
    };
    browser = await launchChromium();
  });
  after(async () => {
    await browser?.close();
    await rm(root, { recursive: true, force: true });
  });

  async function checkPage(url: string | undefined): Promise<void> {
    const page = await browser.newPage();
    try {
      await page.goto(url!);
      await page.waitForFunction("globalThis.texts");
      const [text, json] = (await page.evaluate("texts")) as string[];
      assert.equal(text, expected);
      assert.match(json, /^\{"n": ?\d\}$/);
    } finally {
      await page.close();
    }
  }

  test("built", async () => {
    await vite.build(settings);
    const server = await vite.preview(settings);
    try {
      await checkPage(server.resolvedUrls?.local[0]);
    } finally {
      await server.close();
    }
  });

  test("from its own server", async () => {
    const server = await vite.createServer(settings);
    try {
      await server.listen();
      await checkPage(server.resolvedUrls?.local[0]);
    } finally {
      await server.close();
    }
  });
});
