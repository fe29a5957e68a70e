import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { errorLines, folderHashes, run, start, succeed } from "./run.test.util.js";

const work = mkdtempSync(join(tmpdir(), "pocketllm-recipe-"));
const model = fileURLToPath(new URL("../../models/pocket-stories", import.meta.url));
const text = fileURLToPath(new URL("../../examples/calibration-stories.txt", import.meta.url));

after(() => rmSync(work, { recursive: true, force: true }));

const compressed = (out: string, ...more: string[]) => [
  ...[
    "compress",
    model,
    "--out",
    out,
    "--target",
    "12x",
    "--calibration",
    text,
    "--calibration-tokens",
    "2048",
  ],
  ...more,
];

describe("--divergence", () => {
  const wanted = (out: string, divergence: string, ...more: string[]) => [
    ...["compress", model, "--out", out, "--calibration", text, "--calibration-tokens", "2048"],
    ...["--divergence", divergence, ...more],
  ];

  test("finds the size; killed and resumed, the folder is what --bits makes", async () => {
    const out = join(work, "quality");
    const { child, finished } = start(wanted(out, "0.3"));
    while (!existsSync(join(`${out}.tries`, "2.500")) && child.exitCode === null) await sleep(5);
    child.kill("SIGKILL");
    await finished;
    assert.ok(!existsSync(out));
    const fresh = await run(...wanted(out, "0.3"));
    assert.equal(fresh.code, 2, fresh.stderr);
    assert.match(fresh.stderr, /unfinished run: run with --resume/);

    const resumed = await succeed(...wanted(out, "0.3", "--resume", "--json"));
    const report = JSON.parse(resumed.stdout);
    assert.ok(report.divergence <= 0.3 && report.divergence > 0.24, `${report.divergence}`);
    assert.ok(report.tries.length >= 2 && report.tries[0].bits === 2.5);
    assert.ok(!existsSync(`${out}.tries`));

    const bits = join(work, "bits");
    const byHand = compressed(bits, "--bits", String(report.bits)).filter((x, i, all) => {
      return x !== "--target" && all[i - 1] !== "--target";
    });
    await succeed(...byHand);
    assert.deepEqual(folderHashes(out), folderHashes(bits));
  });

  test("out of reach: says how near the highest rates come", async () => {
    const { code, stderr } = await run(...wanted(join(work, "perfect"), "1e-6"));
    assert.equal(code, 1, stderr);
    assert.match(stderr, /out of reach: \d\.\d+ bits leave 0\.\d+/);
  });

  for (const [what, more] of [
    ["a size too", ["--target", "6x"]],
    ["a dry run", ["--dry-run"]],
    ["no text to hold out", ["--data-free"]],
  ] as const)
    test(`refuses ${what}`, async () => {
      const { code, stderr } = await run(...wanted(join(work, "no"), "0.3", ...more));
      assert.equal(code, 2, stderr);
    });
});

describe("--recipe best", () => {
  test("trains for the coded embedding, compresses and tunes; killed three times, it gives what one run gives", async () => {
    const out = join(work, "best");
    const best = compressed(out, "--recipe", "best", "--time-budget", "20s");
    const killedAt = async (path: string, ...more: string[]) => {
      const { child, finished } = start([...best, ...more]);
      while (!existsSync(path) && child.exitCode === null) await sleep(5);
      child.kill("SIGKILL");
      await finished;
    };
    await killedAt(join(`${out}.absorbing`, "budget.json"));
    assert.ok(!existsSync(`${out}.balanced.partial`));
    // Whatever the machine's pace allows, few steps are enough here.
    const steps = { absorbing: 20, tuning: 16 };
    const decide = (folder: string) => {
      for (const [kind, count] of Object.entries(steps)) {
        mkdirSync(`${folder}.${kind}`, { recursive: true });
        writeFileSync(join(`${folder}.${kind}`, "budget.json"), JSON.stringify({ steps: count }));
      }
    };
    decide(out);
    await killedAt(join(`${out}.absorbing`, "state.safetensors"), "--resume");
    assert.ok(existsSync(`${out}.balanced.partial`) && !existsSync(`${out}.balanced`) && !existsSync(out));

    const fresh = await run(...best);
    assert.equal(fresh.code, 2, fresh.stderr);
    assert.match(fresh.stderr, /unfinished run: run with --resume/);
    const other = await run(...compressed(out, "--recipe", "best", "--resume", "--seed", "5"));
    assert.equal(other.code, 2, other.stderr);
    assert.match(other.stderr, /other (model or )?options/);

    await killedAt(join(`${out}.tuning`, "state.safetensors"), "--resume");
    assert.ok(existsSync(`${out}.balanced`) && !existsSync(out));

    const resumed = await succeed(...best, "--resume", "--json");
    const report = JSON.parse(resumed.stdout);
    assert.equal(report.tuned.steps, steps.tuning);
    assert.ok(report.tuned.heldOutAfter < report.tuned.heldOutBefore);
    for (const left of ["balanced", "absorbing", "tuning"]) assert.ok(!existsSync(`${out}.${left}`), left);

    const whole = join(work, "whole");
    decide(whole);
    const atOnce = compressed(whole, "--recipe", "best", "--time-budget", "20s", "--resume", "--json");
    const { stdout } = await succeed(...atOnce);
    const { absorbed } = JSON.parse(stdout);
    assert.equal(absorbed.steps, steps.absorbing);
    assert.ok(absorbed.heldOutAfter < absorbed.heldOutBefore);
    assert.deepEqual(folderHashes(out), folderHashes(whole));
  });

  test("a target out of reach is refused before any work, and leaves nothing", async () => {
    const out = join(work, "small");
    const args = ["compress", model, "--out", out, "--target", "15x", "--calibration", text];
    const { code, stderr } = await run(...args, "--recipe", "best", "--time-budget", "20s");
    assert.equal(code, 1, stderr);
    assert.match(stderr, /out of reach/);
    assert.deepEqual(
      readdirSync(work).filter((name) => name.startsWith("small")),
      [],
    );
  });

  test("a dry run counts the training", async () => {
    const forecastOf = async (...more: string[]) => {
      const out = join(work, "unused");
      const { stdout } = await succeed(...compressed(out, ...more, "--dry-run", "--json"));
      assert.ok(!existsSync(out));
      return JSON.parse(stdout).forecast;
    };
    const balanced = await forecastOf("--recipe", "balanced");
    const best = await forecastOf("--recipe", "best", "--time-budget", "7m");
    assert.equal(Math.round(best.seconds - balanced.seconds), 7 * 60);
    assert.ok(best.memoryBytes > balanced.memoryBytes);
  });

  const refused: readonly [what: string, message: RegExp, more: readonly string[]][] = [
    ["a time budget without it", /--time-budget is of the training/, ["--time-budget", "5m"]],
    ["a time that is none", /expected a time such as 45m/, ["--recipe", "best", "--time-budget", "5"]],
    ["fast with text", /not both/, ["--recipe", "fast"]],
    ["the method that cannot be tuned", /not meta/, ["--recipe", "best", "--method", "meta"]],
  ];
  for (const [what, message, more] of refused)
    test(`refuses ${what}`, async () => {
      const result = await run(...compressed(join(work, "no"), ...more));
      assert.equal(result.code, 2, result.stderr);
      assert.match(result.stderr, message);
      assert.equal(errorLines(result).length, 1, result.stderr);
      assert.ok(!existsSync(join(work, "no")));
    });

  test("refuses to work without text", async () => {
    const result = await run("compress", model, "--out", join(work, "no"), "--recipe", "best");
    assert.equal(result.code, 2, result.stderr);
    assert.match(result.stderr, /give --calibration/);
  });
});
