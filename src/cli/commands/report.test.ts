/** `pocketllm report` as a user runs it. */
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { sha256 } from "../../container/disk.js";
import { parseManifest, writeManifest } from "../../container/manifest.js";
import { launchChromium, noChromium } from "../../runtime/chromium.test.util.js";
import { POCKET_STORIES } from "../../runtime/real-models.test.util.js";
import { errorLines, run, succeed } from "../run.test.util.js";

const STORIES = join(POCKET_STORIES, "../../examples/held-out-stories.txt");
const work = mkdtempSync(join(tmpdir(), "pocketllm-report-"));
after(() => rmSync(work, { recursive: true }));
const at = (...parts: string[]) => join(work, ...parts);
const SIX = at("six");
const TEN = at("ten");
const TASK = at("toy.jsonl");

const json = (path: string) => JSON.parse(readFileSync(path, "utf8"));

before(async () => {
  const question = '{"context": "Once upon a", "choices": ["time", "spoon"], "gold": 0}\n';
  writeFileSync(TASK, question + question.replace("0}", "1}"));
  for (const [out, target] of [
    [SIX, "6x"],
    [TEN, "10x"],
  ])
    await succeed("compress", POCKET_STORIES, "--out", out, "--target", target, "--data-free");
  const measure = ["--text", STORIES, "--context", "64", "--windows", "2", "--tasks", TASK, "--threads", "1"];
  for (const folder of [SIX, TEN])
    await succeed("eval", folder, "--reference", POCKET_STORIES, ...measure, "--out", `${folder}.json`);
  await succeed("eval", POCKET_STORIES, "--tasks", TASK, "--threads", "1", "--out", at("original.json"));
});

test("the numbers of the page are those of inspect and eval", async () => {
  const out = at("one.html");
  await succeed("report", SIX, "--evaluation", `${SIX}.json`, at("original.json"), "--out", out);
  const page = readFileSync(out, "utf8");
  const inspection = JSON.parse((await succeed("inspect", SIX, "--json")).stdout);
  const evaluation = json(`${SIX}.json`);
  const shown = [
    `<b>${inspection.ratio.toFixed(2)}x</b>`,
    `<b>${inspection.bitsPerWeight.toFixed(3)}</b>`,
    ...inspection.parts.map(({ bytes }: { bytes: number }) => `<td>${bytes.toLocaleString("en-US")}</td>`),
    `<td>${evaluation.perplexity.toFixed(4)} ± ${evaluation.perplexityStderr.toFixed(4)}</td>`,
    `<td>${evaluation.referencePerplexity.toFixed(4)}</td>`,
    `<td>${evaluation.divergence.mean.toFixed(5)} ± ${evaluation.divergence.stderr.toFixed(5)}</td>`,
    `<td>${(100 * evaluation.sameTop).toFixed(2)} %</td>`,
    evaluation.model.manifestSha256,
    json(join(SIX, "pocketllm.json")).provenance.source.sha256,
    "original</td><td>50.0 ± 50.0 %</td>",
  ];
  for (const text of shown) assert.ok(page.includes(text), `${text} is not in the page`);
  const { errors } = json(join(SIX, "pocketllm.json")).provenance.measured;
  for (const name of Object.keys(errors)) assert.ok(page.includes(`<th scope="row">${name}</th>`), name);
  assert.doesNotMatch(page, /<script|https?:|src=|@import/);
  assert.match(page, /prefers-color-scheme: dark/);
  const plots = page.match(/<svg (?!class="key")/g) ?? [];
  assert.ok(plots.length >= 3, `${plots.length} plots`);
  assert.equal(
    plots.length,
    page.match(/role="img" aria-labelledby="(\S+)-t \1-d"><title id="\1-t">/g)?.length,
  );
});

test("--json has the same data; several folders have a frontier; a page is the same twice", async () => {
  const out = at("two.html");
  const args = ["report", SIX, TEN, "--evaluation", `${SIX}.json`, `${TEN}.json`, "--out", out];
  const { folders } = JSON.parse((await succeed(...args, "--json")).stdout);
  assert.deepEqual(
    folders.map(({ name }: { name: string }) => name),
    ["six", "ten"],
  );
  for (const folder of folders) {
    const evaluation = json(`${folder.path}.json`);
    assert.equal(folder.evaluations[0].text.perplexity, evaluation.perplexity);
    assert.equal(folder.evaluations[0].tasks[0].acc, evaluation.tasks.toy.acc);
    assert.equal(folder.manifestSha256, evaluation.model.manifestSha256);
    const { squaredError } = json(join(folder.path, "pocketllm.json")).provenance.measured.errors[
      "lm_head"
    ] ?? {
      squaredError: [],
    };
    const own = folder.distortion.filter(({ name }: { name: string }) => name === "lm_head");
    assert.deepEqual(
      own.map((entry: { squaredError: number }) => entry.squaredError),
      squaredError,
    );
  }
  const page = readFileSync(out, "utf8");
  assert.match(page, /Size against divergence from the original/);
  assert.match(page, /2 models by size and KL, nats\. None is both smaller and better than: ten, six\./);
  await succeed(...args);
  assert.equal(readFileSync(out, "utf8"), page);
});

test("measured now: the same numbers as from a file, which is kept beside the page", async () => {
  const measure = ["--reference", POCKET_STORIES, "--text", STORIES, "--context", "64", "--windows", "2"];
  await succeed("report", TEN, ...measure, "--threads", "1", "--out", at("now", "page.html"));
  const kept = readdirSync(at("now")).filter((name) => name.endsWith(".eval.json"));
  assert.equal(kept.length, 1);
  assert.equal(json(at("now", kept[0])).perplexity, json(`${TEN}.json`).perplexity);
  const page = readFileSync(at("now", "page.html"), "utf8");
  assert.ok(page.includes(`<td>${json(`${TEN}.json`).divergence.mean.toFixed(5)} ±`));
});

test("speed from a result of bench", async () => {
  const speed = { prefill: 801.25, decode: 123.5, timeToFirstToken: 0.2, residentBytes: 9e7, loadSeconds: 1 };
  const against = [{ ...speed, model: TEN }];
  const machine = { cores: 2, processor: "<b>" };
  writeFileSync(
    at("bench.json"),
    JSON.stringify({ ...speed, model: POCKET_STORIES, decode: 99, against, machine }),
  );
  await succeed("report", TEN, "--bench", at("bench.json"), "--out", at("fast.html"));
  assert.match(
    readFileSync(at("fast.html"), "utf8"),
    /cores 2, processor &lt;b&gt;<\/th><td>801\.3<\/td><td>123\.5<\/td><td>0\.200 s<\/td>/,
  );
});

test("--card: a README.md with the hub's header; weights unchanged; never over another one", async () => {
  const folder = at("carded");
  cpSync(SIX, folder, { recursive: true });
  const card = ["report", folder, "--evaluation", `${SIX}.json`, "--out", at("card.html"), "--card"];
  await succeed(...card, "--base-model", "pocket/stories", "--license", "apache-2.0");
  const text = readFileSync(join(folder, "README.md"), "utf8");
  const [, header] = /^---\n([\s\S]*?)\n---\n\n# carded\n/.exec(text) ?? [];
  assert.match(header, /^library_name: pocketllm$/m);
  assert.match(header, /^base_model: "pocket\/stories"$/m);
  assert.match(header, /^license: "apache-2\.0"$/m);
  assert.match(header, /^ {4}metrics: \[\{type: perplexity, value: [\d.]+\}\]$/m);
  await succeed("verify", folder);
  writeFileSync(join(folder, "README.md"), "mine");
  const refused = await run(...card);
  assert.equal(refused.code, 1);
  assert.match(errorLines(refused).join(), /README\.md is there already: give --force/);
  assert.equal(readFileSync(join(folder, "README.md"), "utf8"), "mine");
  await succeed(...card, "--force");
  assert.match(readFileSync(join(folder, "README.md"), "utf8"), /^---\n/);
});

const EVIL = `</title></style><script>alert(1)</script><img src=x onerror="alert(2)">' " &amp; \u202e`;

/** A folder whose name and manifest, and a result whose names, try to become markup. */
async function hostileFolder(): Promise<{ folder: string; result: string }> {
  const folder = at('"><img src=x onerror=alert(3)>');
  cpSync(TEN, folder, { recursive: true });
  const path = join(folder, "pocketllm.json");
  const manifest = await parseManifest(readFileSync(path), path, sha256);
  const { provenance } = manifest;
  const bytes = await writeManifest(
    {
      ...manifest,
      provenance: {
        ...provenance,
        tool: EVIL,
        toolVersion: EVIL,
        options: { [EVIL]: EVIL, nested: { [EVIL]: [EVIL] } },
        source: { ...provenance.source, format: EVIL },
        calibration: [{ name: EVIL, bytes: 1, sha256: "0".repeat(64) }],
        measured: { errors: { [EVIL]: { squaredError: [EVIL], proxyError: {} } }, divergence: EVIL },
      },
    },
    sha256,
  );
  writeFileSync(path, bytes);
  const evaluation = json(`${TEN}.json`);
  const result = at("hostile.json");
  writeFileSync(
    result,
    JSON.stringify({
      ...evaluation,
      model: { format: EVIL, path: EVIL, manifestSha256: sha256(bytes) },
      text: { ...evaluation.text, name: EVIL },
      tasks: { [EVIL]: evaluation.tasks.toy },
      options: { kvCache: EVIL },
      machine: EVIL,
    }),
  );
  return { folder, result };
}

test("hostile names stay text, in the page and in the card", { skip: noChromium }, async () => {
  const { folder, result } = await hostileFolder();
  const out = at("hostile.html");
  await succeed("report", folder, SIX, "--evaluation", result, `${SIX}.json`, "--out", out, "--card");
  assert.doesNotMatch(readFileSync(out, "utf8"), /<script|<img|\u202e/);
  const browser = await launchChromium();
  try {
    const page = await browser.newPage({ viewport: { width: 360, height: 800 } });
    let asked = 0;
    page.on("dialog", () => asked++);
    page.on("request", (request) => request.url().startsWith("file:") || asked++);
    // As a page of its own the path would be part of the question.
    await page.setContent(readFileSync(out, "utf8"));
    const found = await page.evaluate(`({
      foreign: document.querySelectorAll("script, img, iframe, link, [onerror]").length,
      shown: document.body.textContent.includes("<script>alert(1)</script>"),
      wide: document.documentElement.scrollWidth - innerWidth,
    })`);
    assert.deepEqual(found, { foreign: 0, shown: true, wide: 0 });
    assert.equal(asked, 0);
  } finally {
    await browser.close();
  }
  const card = readFileSync(join(folder, "README.md"), "utf8");
  assert.doesNotMatch(card, /(?<!\\)<(script|img)/);
  const header = card.split("\n---\n")[0];
  assert.ok(
    header.split("\n").every((line) => /^(---|[a-z_-]+:|- name:|\s{2,}\S)/.test(line)),
    header,
  );
});

test("what cannot be reported: one line, exit code 1, or 2 for a wrong option", async () => {
  const file = (name: string, contents: string) => {
    writeFileSync(at(name), contents);
    return at(name);
  };
  const evaluation = json(`${SIX}.json`);
  const broken = { ...evaluation, perplexity: "<b>" };
  const without = { ...evaluation, model: undefined };
  mkdirSync(at("folder.html"));
  const cases: [code: number, message: RegExp, ...args: string[]][] = [
    [1, /no such file or folder.*nowhere\.json/, SIX, "--evaluation", at("nowhere.json")],
    [
      1,
      /six\.json measured another model \(manifest [0-9a-f]{16}…\) than .*ten/,
      TEN,
      "--evaluation",
      `${SIX}.json`,
    ],
    [1, /is not valid JSON/, SIX, "--evaluation", file("bad.json", "{")],
    [1, /is not a result of eval/, SIX, "--evaluation", file("other.json", "{}")],
    [
      1,
      /perplexity is not a number from 1/,
      SIX,
      "--evaluation",
      file("broken.json", JSON.stringify(broken)),
    ],
    [1, /does not say which model/, SIX, "--evaluation", file("nobody.json", JSON.stringify(without))],
    [1, /bench\.json measured ".*" and none of .*six: measure these/, SIX, "--bench", at("bench.json")],
    [1, /is not a result of bench/, SIX, "--bench", `${SIX}.json`],
    [1, /is no PocketLLM folder/, POCKET_STORIES],
    [1, /is not a file/, SIX, "--out", at("folder.html")],
    [2, /must end in \.html/, SIX, "--out", join(SIX, "model.safetensors")],
    [2, /are the same model: give it once/, SIX, SIX],
    [2, /--force has no meaning without --card/, SIX, "--force"],
    [2, /nothing to measure with these options/, SIX, "--reference", POCKET_STORIES],
    [2, /expected org\/name/, SIX, "--card", "--base-model", "a/b: license"],
    [2, /folders/],
  ];
  for (const [code, message, ...args] of cases) {
    const out = args.includes("--out") ? [] : ["--out", at("refused.html")];
    const finished = await run("report", ...args, ...out);
    assert.equal(finished.code, code, `${args}: ${finished.stderr}`);
    assert.equal(errorLines(finished).length, 1, finished.stderr);
    assert.match(errorLines(finished)[0], message);
  }
  assert.ok(!readdirSync(work).includes("refused.html"));
});
