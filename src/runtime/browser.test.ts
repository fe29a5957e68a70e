/** The library in a page of a real browser: the page of examples/browser, with a compressed model. */
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout } from "node:timers/promises";
import type { Browser, Page } from "playwright-core";
import type * as Library from "../browser.js";
import { compress } from "../compress/index.js";
import { launchChromium, noChromium } from "./chromium.test.util.js";
import { loadModel } from "./load.js";
import { POCKET_STORIES } from "./real-models.test.util.js";

const PROMPT = "Once upon a time, there was a little girl named";

interface Example {
  servePage(options: { model: string; isolated?: boolean }): Promise<Server>;
}

/** The library as the page's script sees it: only a type here, since it runs over there. */
declare function load(): Promise<typeof Library>;

describe("in a page of Chromium", { skip: noChromium }, () => {
  let folder: string;
  let model: string;
  let example: Example;
  let browser: Browser;
  let expected = "";

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "pocketllm-browser-"));
    model = join(folder, "stories");
    await compress({ source: POCKET_STORIES, out: model, target: { kind: "ratio", ratio: 6 } });
    const here = await loadModel(model, { threads: 1 });
    for await (const { text } of here.generate(PROMPT, { maxTokens: 120 })) expected += text;
    await here.close();
    assert.ok(expected.length > 300);
    example = (await import(new URL("../../examples/browser/serve.mjs", import.meta.url).href)) as Example;
    browser = await launchChromium();
  });
  after(async () => {
    await browser?.close();
    await rm(folder, { recursive: true, force: true });
  });

  /** Runs `use` on a fresh page of a server of its own. */
  async function withPage(isolated: boolean, use: (page: Page) => Promise<void>): Promise<void> {
    const server = await example.servePage({ model, isolated });
    const context = await browser.newContext();
    try {
      const page = await context.newPage();
      await page.addInitScript('globalThis.load = () => import("/pocketllm/pocketllm.js")');
      await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
      await use(page);
    } finally {
      await context.close();
      server.closeAllConnections();
      server.close();
    }
  }

  const ready = (page: Page) => page.waitForFunction("!document.getElementById('write').disabled");

  /** Presses the example's button and waits for the whole story. */
  async function story(page: Page): Promise<string> {
    await ready(page);
    await page.click("#write");
    await ready(page);
    return (await page.textContent("#text")) ?? "";
  }

  for (const isolated of [true, false])
    test(`${isolated ? "" : "not "}cross-origin isolated: the story is Node's`, async () => {
      await withPage(isolated, async (page) => {
        await ready(page);
        const threads = await page.evaluate(
          (isolated) => (isolated ? Math.min(8, navigator.hardwareConcurrency) : 1),
          isolated,
        );
        assert.equal(await page.textContent("#state"), `ready, ${threads} threads`);
        assert.equal(page.workers().length, threads - 1);
        assert.equal(await story(page), PROMPT + expected);
        // A reload ends the old page's workers and takes the files from the cache: the server may be gone.
        await page.route("**/model/**", (route) => route.abort());
        await page.reload();
        assert.equal(await story(page), PROMPT + expected);
        assert.equal(page.workers().length, threads - 1);
      });
    });

  /** The browser says a moment later that a worker has ended. */
  const assertWorkers = async (page: Page, count: number) => {
    for (let i = 0; i < 100 && page.workers().length > count; i++) await setTimeout(50);
    assert.equal(page.workers().length, count);
  };

  test("an abort in the middle leaves the model usable; close ends its workers", async () => {
    await withPage(true, async (page) => {
      await ready(page);
      const own = page.workers().length;
      const { reason, text } = await page.evaluate(async (prompt) => {
        const { loadModel } = await load();
        const model = await loadModel("/model", { threads: 2 });
        const abort = new AbortController();
        let reason = "";
        for await (const event of model.generate(prompt, { signal: abort.signal })) {
          if (event.type === "token" && event.seconds > 0) abort.abort();
          if (event.type === "end") reason = event.finishReason;
        }
        // Left without an end.
        for await (const _ of model.generate(prompt)) break;
        let text = "";
        for await (const event of model.generate(prompt, { maxTokens: 120 })) text += event.text;
        await model.close();
        return { reason, text };
      }, PROMPT);
      assert.equal(reason, "abort");
      assert.equal(text, expected);
      await assertWorkers(page, own);
    });
  });

  test("an answer held to a schema: Node's; a schema that cannot be used; close ends its worker", async () => {
    const schema = {
      type: "object",
      properties: {
        sad: { type: "boolean" },
        names: { type: "array", items: { enum: ["Lily", "Ben"] }, maxItems: 3 },
      },
      required: ["sad", "names"],
    };
    const options = { maxTokens: 60, temperature: 1, seed: 7, format: { type: "schema" as const, schema } };
    const here = await loadModel(model, { threads: 1 });
    let text = "";
    for await (const event of here.generate(PROMPT, options)) text += event.text;
    await here.close();
    await withPage(false, async (page) => {
      const own = page.workers().length;
      const [there, message] = await page.evaluate(
        async ([prompt, options]) => {
          const { loadModel } = await load();
          const model = await loadModel("/model");
          let text = "";
          for await (const event of model.generate(prompt, options)) text += event.text;
          const wrong = { ...options, format: { type: "schema" as const, schema: { type: "nonsense" } } };
          const message = await model
            .generate(prompt, wrong)
            .next()
            .then(String, (error: Error) => `${error.name}: ${error.message}`);
          await model.close();
          return [text, message];
        },
        [PROMPT, options] as const,
      );
      assert.equal(there, text);
      assert.deepEqual(Object.keys(JSON.parse(there)), ["sad", "names"]);
      assert.equal(message, 'InputError: the JSON schema cannot be used: Unsupported type "nonsense"');
      await assertWorkers(page, own);
    });
  });

  test("files that the user chose, and a folder that is none", async () => {
    await withPage(false, async (page) => {
      await page.setContent('<input type="file" webkitdirectory>');
      await page.setInputFiles("input", model);
      const text = await page.evaluate(async (prompt) => {
        const { loadModel } = await load();
        const model = await loadModel(document.querySelector("input")!.files!);
        let text = "";
        for await (const event of model.generate(prompt, { maxTokens: 10 })) text += event.text;
        await model.close();
        return text;
      }, PROMPT);
      assert.ok(text.length > 20 && expected.startsWith(text), text);
      const message = await page.evaluate(async () => {
        const { loadModel } = await load();
        return await loadModel("nothing/").catch((error: Error) => `${error.name}: ${error.message}`);
      });
      assert.match(String(message), /^InputError: http.*\/nothing\/: has no pocketllm\.json/);
    });
  });
});
