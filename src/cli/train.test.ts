import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { errorLines, folderHashes, makeTinyModel, run, start, succeed, words } from "./run.test.util.js";

const work = mkdtempSync(join(tmpdir(), "pocketllm-train-"));
const like = join(work, "like");
const text = join(work, "text.txt");

before(async () => {
  await makeTinyModel(like, { layers: 2 });
  writeFileSync(text, Array.from({ length: 2000 }, (_, i) => `${words(i)}.`).join(" "));
});
after(() => rmSync(work, { recursive: true, force: true }));

const training = (out: string, ...more: string[]) => [
  ...["train", "--like", like, "--out", out],
  ...(more.includes("--data") ? [] : ["--data", text]),
  ...["--context", "64", "--batch-size", "4", "--epochs", "6", "--lr", "0.01"],
  ...more,
];

describe("train", () => {
  const whole = join(work, "whole");

  test("learns its text, on any number of threads, and what it makes is a model like any other", async () => {
    const log = join(work, "log.jsonl");
    const { stdout } = await succeed(...training(whole, "--json", "--log", log));
    const report = JSON.parse(stdout);
    // A model that knows nothing is at ln(vocabulary), 5.7; the frequencies of the tokens alone are not enough.
    assert.ok(report.heldOutBefore > 4 && report.heldOutAfter < 1.9, stdout);
    assert.equal(readFileSync(log, "utf8").trim().split("\n").length, report.steps);
    assert.ok(!existsSync(`${whole}.training`) && !existsSync(`${whole}.partial`));

    const evaluated = await succeed(
      ...["eval", whole, "--text", text, "--context", "64", "--windows", "8", "--json"],
    );
    assert.ok(Math.log(JSON.parse(evaluated.stdout).perplexity) < 2.1, evaluated.stdout);
    await succeed("compress", whole, "--out", join(work, "small"), "--target", "4x", "--data-free");

    const single = join(work, "single");
    await succeed(...training(single, "--workers", "1"));
    assert.deepEqual(folderHashes(single), folderHashes(whole));
  });

  test("killed and resumed, it makes the same bytes", async () => {
    const out = join(work, "killed");
    const { child, finished } = start(training(out));
    const state = join(`${out}.training`, "state.safetensors");
    while (!existsSync(state) && child.exitCode === null) await sleep(5);
    child.kill("SIGKILL");
    assert.equal((await finished).signal, "SIGKILL");
    const fresh = await run(...training(out));
    assert.equal(fresh.code, 2, fresh.stderr);
    assert.match(fresh.stderr, /unfinished run: run with --resume/);
    await succeed(...training(out, "--resume"));
    assert.deepEqual(folderHashes(out), folderHashes(whole));
  });

  const refused: readonly [what: string, message: RegExp, more: () => readonly string[]][] = [
    ["an output that exists", /exists already/, () => ["--out", like]],
    ["a context beyond the model's", /context/, () => ["--context", "100000"]],
    ["an empty file", /empty/, () => ["--data", file("empty.txt", "")]],
    ["text too short to train on", /more text/, () => ["--data", file("short.txt", "a river")]],
    [
      "a learning rate that loses it",
      /learning rate 1000 is too high|nothing is written/,
      () => ["--lr", "1000"],
    ],
  ];
  const file = (name: string, content: string) => {
    writeFileSync(join(work, name), content);
    return join(work, name);
  };
  for (const [what, message, more] of refused)
    test(`refuses ${what}`, async () => {
      const result = await run(...training(join(work, "no"), ...more()));
      assert.notEqual(result.code, 0);
      assert.match(result.stderr, message);
      assert.equal(errorLines(result).length, 1, result.stderr);
      assert.ok(!existsSync(join(work, "no")));
      rmSync(join(work, "no.training"), { recursive: true, force: true });
    });
});
