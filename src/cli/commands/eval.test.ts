/** `pocketllm eval` as a user runs it. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { POCKET_STORIES } from "../../runtime/real-models.test.util.js";
import { errorLines, run, start, succeed } from "../run.test.util.js";

const STORIES = join(POCKET_STORIES, "../../examples/held-out-stories.txt");
const temporary = mkdtempSync(join(tmpdir(), "pocketllm-eval-"));
after(() => rmSync(temporary, { recursive: true }));

/** A file of these contents. */
function file(name: string, contents: string): string {
  const path = join(temporary, name);
  writeFileSync(path, contents);
  return path;
}

const QUESTION = '{"context": "Once upon a", "choices": ["time", "spoon"], "gold": 1}\n';
const TASK = file("toy.jsonl", QUESTION.replace("1}", "0}") + QUESTION);
const WORDS = file("last.jsonl", '{"context": "Once upon a", "target": "time"}\n');

test("--json: one object with the contract's keys; a model does not diverge from itself", async () => {
  const { stdout } = await succeed(
    ...["eval", POCKET_STORIES, "--text", STORIES, "--context", "128", "--windows", "3"],
    ...["--reference", POCKET_STORIES, "--threads", "1", "--json"],
  );
  const report = JSON.parse(stdout);
  assert.deepEqual([report.context, report.windows, report.tokensScored], [128, 3, 381]);
  assert.ok(report.perplexity > 5 && report.perplexity < 40, `perplexity ${report.perplexity}`);
  assert.equal(report.referencePerplexity, report.perplexity);
  assert.deepEqual(report.divergence, { mean: 0, stderr: 0, median: 0, p90: 0, p99: 0, max: 0 });
  assert.deepEqual(report.deltaP, { mean: 0, stderr: 0, rms: 0 });
  assert.equal(report.protocol, "default");
  assert.match(report.model.sha256, /^[0-9a-f]{64}$/);
  assert.deepEqual(report.options, { protocol: "default", context: 128, windows: 3 });
  assert.equal(report.tool.name, "pocketllm");
  assert.equal(report.text.sha256, createHash("sha256").update(readFileSync(STORIES)).digest("hex"));
  assert.equal(report.sameTop, 1);
});

test("for people: a table with context, windows, tokens scored and the baseline", async () => {
  const alone = await run("eval", POCKET_STORIES, "--text", STORIES, "--context", "64", "--windows", "2");
  assert.match(alone.stdout, /^context +64 tokens$/m);
  assert.match(alone.stdout, /^windows +2$/m);
  assert.match(alone.stdout, /^tokens scored +126$/m);
  assert.match(alone.stdout, /^reference +none/m);
  assert.match(alone.stdout, /^protocol +default: windows of 64 tokens without overlap/m);
  const perplexity = /^perplexity +(\d+\.\d{4}) ± \d+\.\d{4}$/m.exec(alone.stdout)?.[1];
  const args = ["--context", "64", "--windows", "2", "--reference", POCKET_STORIES];
  const compared = await run("eval", POCKET_STORIES, "--text", STORIES, ...args);
  assert.match(compared.stdout, new RegExp(`^reference perplexity +${perplexity}$`, "m"));
  assert.match(compared.stdout, /^divergence, mean +0\.00000 ± 0\.00000 nats$/m);
  assert.match(compared.stdout, /^same top token +100\.00 %$/m);
});

test("a .jsonl file is its texts joined by an empty line", async () => {
  const text = readFileSync(STORIES, "utf8");
  const middle = text.indexOf("\n\n");
  const documents = [text.slice(0, middle), text.slice(middle + 2)];
  const lines = documents.map((document) => JSON.stringify({ text: document, other: 1 }));
  const jsonl = file("stories.jsonl", `${lines.join("\n")}\n`);
  const measure = async (path: string) =>
    JSON.parse((await succeed("eval", POCKET_STORIES, "--text", path, "--context", "200", "--json")).stdout);
  const [whole, parts] = [await measure(STORIES), await measure(jsonl)];
  assert.equal(parts.perplexity, whole.perplexity);
  assert.equal(parts.windows, whole.windows);
});

test("what cannot be measured: one line, exit code 1, or 2 for a wrong option", async () => {
  const short = file("short.txt", "Once upon a time");
  const cases: [code: number, message: RegExp, ...args: string[]][] = [
    [1, /text is too short: \d+ tokens do not fill one window of 512/, "--text", short],
    [1, /context of 513 tokens is longer than the model's: give 512/, "--text", STORIES, "--context", "513"],
    [1, /cannot read .*nowhere\.txt/, "--text", join(temporary, "nowhere.txt")],
    [1, /line 1 is not valid JSON/, "--text", file("bad.jsonl", "{\n")],
    [1, /nothing-here/, "--text", STORIES, "--reference", join(temporary, "nothing-here")],
    [1, /is empty: give/, "--text", file("empty.txt", "")],
    [1, /cannot read .*nowhere\.jsonl/, "--tasks", join(temporary, "nowhere.jsonl")],
    [
      1,
      /line 2: "gold" is "4", expected/,
      "--tasks",
      file("gold.jsonl", QUESTION + QUESTION.replace("1}", "4}")),
    ],
    [1, /is not a file: name one/, "--text", STORIES, "--out", temporary],
    [
      1,
      /gptq has windows of 2048 tokens and the model's context is 512/,
      "--text",
      STORIES,
      "--protocol",
      "gptq",
    ],
    [2, /gptq has windows of 2048 tokens: leave/, "--text", STORIES, "--protocol", "gptq", "--context", "64"],
    [2, /nothing to measure: give --text, --tasks/],
    [2, /--protocol/, "--text", STORIES, "--protocol", "other"],
    [2, /--limit/, "--tasks", TASK, "--limit", "0"],
    [2, /--limit has no meaning without --tasks/, "--text", STORIES, "--limit", "3"],
    [2, /--windows has no meaning without --text/, "--tasks", TASK, "--windows", "3"],
    [2, /two task files are named toy\.jsonl/, "--tasks", TASK, TASK],
    [2, /--windows/, "--text", STORIES, "--windows", "0"],
    [2, /--context/, "--text", STORIES, "--context", "many"],
  ];
  for (const [code, message, ...args] of cases) {
    const finished = await run("eval", POCKET_STORIES, ...args, "--json");
    assert.equal(finished.code, code, finished.stderr);
    assert.equal(finished.stdout, "");
    assert.equal(errorLines(finished).length, 1, finished.stderr);
    assert.match(errorLines(finished)[0], message);
  }
});

test("Ctrl-C stops between chunks with one line", async () => {
  const long = file("long.txt", readFileSync(STORIES, "utf8").repeat(200));
  const { child, finished } = start(["eval", POCKET_STORIES, "--text", long]);
  child.stderr?.once("data", () => child.kill("SIGINT"));
  const result = await finished;
  assert.equal(result.code, 1, result.stderr);
  assert.equal(result.stdout, "");
  assert.match(errorLines(result).join(), /^pocketllm: interrupted$/);
});

test("tasks: accuracies in the object, in the table and in the file of --out", async () => {
  const out = join(temporary, "results", "tasks.json");
  const { stdout } = await succeed("eval", POCKET_STORIES, "--tasks", TASK, WORDS, "--json", "--out", out);
  const report = JSON.parse(stdout);
  const { toy, last } = report.tasks;
  assert.deepEqual([toy.acc, toy.accNorm, toy.n], [0.5, 0.5, 2]);
  assert.ok(Math.abs(toy.stderr - 0.5) < 1e-12);
  assert.deepEqual([last.acc, last.stderr, last.n], [1, null, 1]);
  assert.ok(last.perplexity > 1 && last.perplexity < 1.5, `perplexity ${last.perplexity}`);
  assert.deepEqual(JSON.parse(readFileSync(out, "utf8")), report);
  assert.deepEqual(readdirSync(join(temporary, "results")), ["tasks.json"]);
  const table = await run("eval", POCKET_STORIES, "--tasks", TASK, WORDS, "--limit", "1");
  assert.match(table.stdout, /^toy +acc 100\.00 %, acc_norm 100\.00 %, 1 questions$/m);
  assert.match(table.stdout, /^last +acc 100\.00 %, perplexity 1\.\d{3}, 1 questions$/m);
});

test("stopped and run again: goes on from the journal, the same numbers, no journal left", async () => {
  const args = (out: string) => [
    ...["eval", POCKET_STORIES, "--text", STORIES, "--context", "256", "--windows", "40"],
    ...["--threads", "1", "--out", join(temporary, out, "r.json")],
  ];
  await succeed(...args("whole"));
  const { child, finished } = start(args("parts"));
  const journals = () => {
    const folder = join(temporary, "parts");
    return existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith(".journal")) : [];
  };
  const lines = () =>
    journals().reduce(
      (n, name) => n + readFileSync(join(temporary, "parts", name), "utf8").split("\n").length,
      0,
    );
  const watch = setInterval(() => lines() > 4 && child.kill("SIGKILL"), 5);
  await finished;
  clearInterval(watch);
  assert.equal(journals().length, 1);
  const resumed = await run(...args("parts"));
  assert.match(resumed.stderr, /going on after \d+ finished pieces/);
  const read = (out: string) => ({
    ...JSON.parse(readFileSync(join(temporary, out, "r.json"), "utf8")),
    seconds: 0,
  });
  assert.deepEqual(read("parts"), read("whole"));
  assert.deepEqual(journals(), []);
});
