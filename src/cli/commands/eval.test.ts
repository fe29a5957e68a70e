/** `pocketllm eval` as a user runs it. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { POCKET_STORIES } from "../../runtime/real-models.test.util.js";
import { errorLines, run, start } from "../run.test.util.js";

const STORIES = join(POCKET_STORIES, "../../examples/held-out-stories.txt");
const temporary = mkdtempSync(join(tmpdir(), "pocketllm-eval-"));
after(() => rmSync(temporary, { recursive: true }));

/** A file of these contents. */
function file(name: string, contents: string): string {
  const path = join(temporary, name);
  writeFileSync(path, contents);
  return path;
}

test("--json: one object with the contract's keys; a model does not diverge from itself", async () => {
  const { code, stdout, stderr } = await run(
    ...["eval", POCKET_STORIES, "--text", STORIES, "--context", "128", "--windows", "3"],
    ...["--reference", POCKET_STORIES, "--threads", "1", "--json"],
  );
  assert.equal(code, 0, stderr);
  const report = JSON.parse(stdout);
  assert.deepEqual([report.context, report.windows, report.tokensScored], [128, 3, 381]);
  assert.ok(report.perplexity > 5 && report.perplexity < 40, `perplexity ${report.perplexity}`);
  assert.equal(report.referencePerplexity, report.perplexity);
  assert.deepEqual(report.divergence, { mean: 0, median: 0, p99: 0 });
  assert.equal(report.sameTop, 1);
});

test("for people: a table with context, windows, tokens scored and the baseline", async () => {
  const alone = await run("eval", POCKET_STORIES, "--text", STORIES, "--context", "64", "--windows", "2");
  assert.match(alone.stdout, /^context +64 tokens$/m);
  assert.match(alone.stdout, /^windows +2$/m);
  assert.match(alone.stdout, /^tokens scored +126$/m);
  assert.match(alone.stdout, /^reference +none/m);
  const perplexity = /^perplexity +(\d+\.\d{4})$/m.exec(alone.stdout)?.[1];
  const args = ["--context", "64", "--windows", "2", "--reference", POCKET_STORIES];
  const compared = await run("eval", POCKET_STORIES, "--text", STORIES, ...args);
  assert.match(compared.stdout, new RegExp(`^reference perplexity +${perplexity}$`, "m"));
  assert.match(compared.stdout, /^divergence, mean +0\.00000 nats$/m);
  assert.match(compared.stdout, /^same top token +100\.00 %$/m);
});

test("a .jsonl file is its texts joined by an empty line", async () => {
  const text = readFileSync(STORIES, "utf8");
  const middle = text.indexOf("\n\n");
  const documents = [text.slice(0, middle), text.slice(middle + 2)];
  const lines = documents.map((document) => JSON.stringify({ text: document, other: 1 }));
  const jsonl = file("stories.jsonl", `${lines.join("\n")}\n`);
  const measure = async (path: string) =>
    JSON.parse((await run("eval", POCKET_STORIES, "--text", path, "--context", "200", "--json")).stdout);
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
    [2, /--text/],
    [2, /--windows/, "--text", STORIES, "--windows", "0"],
    [2, /--context/, "--text", STORIES, "--context", "many"],
    [2, /--tasks/, "--text", STORIES, "--tasks", "x.jsonl"],
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
