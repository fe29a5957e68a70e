/** The chat page in a real browser, against a server over the compressed story model. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { compress } from "../compress/index.js";
import { inspectModel } from "../container/inspect.js";
import { launchChromium, noChromium } from "../runtime/chromium.test.util.js";
import { loadModel } from "../runtime/load.js";
import type { LoadedModel } from "../runtime/loaded-model.js";
import type { ServerOptions } from "./server.js";
import {
  closeServers,
  copyStories,
  type RunningServer,
  STORIES,
  slowed,
  startServer,
  until,
} from "./server.test.util.js";

const notBuilt =
  !existsSync(new URL("../chat/index.html", import.meta.url)) && "run npm run build:chat first";

describe("the chat page", { skip: noChromium || notBuilt }, () => {
  let folder: string;
  let path: string;
  let model: LoadedModel;
  let browser: Browser;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "pocketllm-page-"));
    await copyStories(join(folder, "original"));
    path = join(folder, "stories");
    await compress({ source: join(folder, "original"), out: path, target: { kind: "ratio", ratio: 6 } });
    model = await loadModel(path, { threads: 1 });
    browser = await launchChromium();
  });
  after(async () => {
    await closeServers();
    await browser?.close();
    await model?.close();
    await rm(folder, { recursive: true, force: true });
  });

  /** Runs `use` on a page that must neither complain nor ask anybody else. A step takes at least 10 ms. */
  async function withPage(
    use: (page: Page, server: RunningServer) => Promise<void>,
    {
      context = {},
      served = model,
      ...options
    }: Partial<ServerOptions> & {
      context?: BrowserContextOptions;
      served?: LoadedModel;
    } = {},
  ): Promise<void> {
    const size = await inspectModel(path);
    const server = await startServer(slowed(served, 10), { size, ...options });
    const opened = await browser.newContext(context);
    try {
      const page = await opened.newPage();
      const complaints: string[] = [];
      page.on("pageerror", (error) => complaints.push(String(error)));
      page.on("console", (line) => {
        // A refused request is logged by the browser itself.
        if (line.type() === "error" && !/status of 40[01]/.test(line.text())) complaints.push(line.text());
      });
      page.on("request", (request) => {
        if (!request.url().startsWith(server.url)) complaints.push(request.url());
      });
      page.setDefaultTimeout(30_000);
      await page.goto(server.url);
      await use(page, server);
      assert.deepEqual(complaints, []);
      assert.deepEqual(server.defects, []);
    } finally {
      await opened.close();
      await server.close(0);
    }
  }

  /** Waits for a condition in the page, asking from outside: its policy forbids what waits inside it. */
  const holds = async (page: Page, condition: string) => {
    const end = performance.now() + 30_000;
    while (!(await page.evaluate(condition))) {
      assert.ok(performance.now() < end, `never true: ${condition}`);
      await sleep(20);
    }
  };
  const answers = (page: Page) => page.locator("article.assistant p");
  /** The page moves the focus after it has been drawn, which is after the key's event. */
  const hasFocus = (page: Page, name: string) =>
    holds(page, `[document.activeElement].every((e) => (e.name || e.id || e.textContent) === "${name}")`);
  const writeAndSend = async (page: Page, text: string) => {
    await holds(page, "document.activeElement.id === 'text'");
    await page.keyboard.type(text);
    await page.keyboard.press("Enter");
  };
  const finished = (page: Page) => page.getByRole("button", { name: "Send" }).waitFor();

  test("by keyboard alone: sends, streams, stops with Esc, answers again", async () => {
    await withPage(async (page, server) => {
      let asked = 0;
      page.on("request", (request) => {
        if (request.method() === "POST") asked++;
      });
      await writeAndSend(page, "A cat.");
      await answers(page).waitFor();
      const early = (await answers(page).textContent())!;
      await holds(
        page,
        `document.querySelector("article.assistant p").textContent.length > ${early.length + 20}`,
      );
      await page.keyboard.press("Escape");
      await finished(page);
      const stopped = (await answers(page).textContent())!;
      assert.ok(stopped.startsWith(early) && stopped.length < 900, stopped);
      await until(async () => (await server.state()).running === 0);
      await sleep(100);
      assert.equal(await answers(page).textContent(), stopped);
      assert.match((await page.getByTestId("status").textContent())!, /^\d+\.\d tokens\/s$/);

      await hasFocus(page, "text");
      await page.keyboard.press("Shift+Tab");
      await hasFocus(page, "Regenerate");
      await page.keyboard.press("Enter");
      await page.getByRole("button", { name: "Stop" }).waitFor();
      await holds(page, `document.querySelector("article.assistant p")?.textContent.length > 20`);
      await page.getByRole("button", { name: "Stop" }).focus();
      await page.keyboard.press("Enter");
      await finished(page);
      assert.equal(await answers(page).count(), 1);
      // Drawn anew, and not unlikely the same.
      assert.equal(asked, 2);
      await hasFocus(page, "text");
    });
  });

  test("says how small the model is", async () => {
    const { weightBytes, bytes16, ratio } = await inspectModel(path);
    await withPage(async (page) => {
      await page.getByText("times smaller").waitFor();
      const text = `${(weightBytes / 1e6).toFixed(2)} MB instead of ${(bytes16 / 1e6).toFixed(2)} MB in 16 bits, ${ratio.toFixed(1)} times smaller`;
      assert.equal(await page.locator("header p").textContent(), text);
    });
  });

  test("settings reach the server and are kept; the conversation goes on", async () => {
    await withPage(async (page) => {
      const sent: Record<string, unknown>[] = [];
      page.on("request", (request) => {
        if (request.method() === "POST") sent.push(request.postDataJSON());
      });
      await page.getByRole("button", { name: "Settings" }).focus();
      await page.keyboard.press("Enter");
      await hasFocus(page, "temperature");
      for (const value of ["0", "0.5", "5", "Be brief"]) {
        await page.keyboard.press("Control+a");
        await page.keyboard.type(value);
        await page.keyboard.press("Tab");
      }
      await page.keyboard.press("Enter");
      await page.getByRole("dialog").waitFor({ state: "hidden" });
      await hasFocus(page, "Settings");
      await page.getByLabel("Message").focus();
      await writeAndSend(page, "One");
      await finished(page);
      await page.reload();
      await writeAndSend(page, "Two");
      await finished(page);
      await writeAndSend(page, "Three");
      await finished(page);
      const [first, second, third] = sent as { messages: { role: string; content: string }[] }[];
      assert.deepEqual(
        { ...first, messages: null },
        {
          ...{ model: "stories", stream: true, stream_options: { include_usage: true }, messages: null },
          ...{ temperature: 0, top_p: 0.5, max_tokens: 5 },
        },
      );
      assert.deepEqual(second.messages, [
        { role: "system", content: "Be brief" },
        { role: "user", content: "Two" },
      ]);
      assert.deepEqual(
        third.messages.map(({ role }) => role),
        ["system", "user", "assistant", "user"],
      );
    });
  });

  test("360 pixels wide, in the dark: nothing scrolls sideways", async () => {
    const context = { viewport: { width: 360, height: 640 }, colorScheme: "dark" as const };
    await withPage(
      async (page) => {
        await writeAndSend(page, "x".repeat(300));
        await page.locator("article.user").waitFor();
        const overflowing = `[...document.querySelectorAll("*")].filter((e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === "auto").length
          + (document.documentElement.scrollWidth > innerWidth)`;
        assert.equal(await page.evaluate(overflowing), 0);
        const inView = await page.locator("footer button.primary").boundingBox();
        assert.ok(inView && inView.x + inView.width <= 360 && inView.y + inView.height <= 640);
        assert.equal(
          await page.evaluate("getComputedStyle(document.body).backgroundColor"),
          "rgb(20, 23, 26)",
        );
        await page.keyboard.press("Escape");
        await finished(page);
        await page.getByRole("button", { name: "Settings" }).click();
        assert.equal(await page.evaluate(overflowing), 0);
      },
      { context },
    );
  });

  test("every control has a name", async () => {
    await withPage(async (page) => {
      await page.getByRole("button", { name: "Settings" }).click();
      const nameless = `[...document.querySelectorAll("button, input, textarea")].filter(
        (e) => !(e.labels?.length || e.textContent.trim() || e.ariaLabel)).map((e) => e.outerHTML)`;
      assert.deepEqual(await page.evaluate(nameless), []);
    });
  });

  test("a key that the server asks for is asked of the reader", async () => {
    await withPage(
      async (page) => {
        await page.getByRole("dialog").waitFor();
        await page.getByLabel("API key").fill("secret");
        await page.keyboard.press("Enter");
        await page.getByRole("heading", { name: "stories" }).waitFor();
        assert.equal(await page.getByRole("alert").count(), 0);
        assert.doesNotMatch(String(await page.evaluate("JSON.stringify(localStorage)")), /secret/);
      },
      { apiKey: "secret" },
    );
  });

  test("a model without a chat template goes on with the text", async () => {
    const teller = await loadModel(STORIES, { threads: 1 });
    try {
      await withPage(
        async (page) => {
          await page.getByText("goes on with a text").waitFor();
          await writeAndSend(page, "Once upon a time");
          await holds(page, `document.querySelector("article.assistant p")?.textContent.length > 40`);
          await page.keyboard.press("Escape");
          await finished(page);
        },
        { served: teller },
      );
    } finally {
      await teller.close();
    }
  });

  test("an error of the server is shown in its words", async () => {
    await withPage(async (page) => {
      await writeAndSend(page, "word ".repeat(700));
      assert.match((await page.getByRole("alert").textContent())!, /tokens/);
      await finished(page);
    });
  });

  test("the files come with a policy that lets in nothing else, and once", async () => {
    const server = await startServer(model);
    const page = await fetch(server.url);
    const policy = page.headers.get("content-security-policy")!;
    assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'; /);
    assert.doesNotMatch(policy, /unsafe|\*|https?:/);
    assert.equal(page.headers.get("x-content-type-options"), "nosniff");
    assert.doesNotMatch(await page.text(), /<script>|style=/);
    const etag = page.headers.get("etag")!;
    assert.equal((await fetch(server.url, { headers: { "if-none-match": etag } })).status, 304);
    for (const path of ["/index.html", "/assets/", "/assets/..%2findex.html", "/../../package.json"])
      assert.equal((await fetch(server.url + path)).status, 404, path);
    await server.close(0);
  });
});
