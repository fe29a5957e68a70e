import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { hostileModule } from "../checkpoint/test-data.test.util.js";
import { PARTS } from "../compress/index.js";
import { errorLines, folderHashes, makeTinyModel, run, start, succeed, words } from "./run.test.util.js";

const work = mkdtempSync(join(tmpdir(), "pocketllm-cli-"));
const model = join(work, "model");
const text = join(work, "text.txt");

before(async () => {
  await makeTinyModel(model);
  writeFileSync(text, Array.from({ length: 600 }, (_, i) => `${words(i)}.`).join(" "));
});
after(() => rmSync(work, { recursive: true, force: true }));

const calibrated = (out: string, ...more: string[]) => [
  "compress",
  model,
  "--out",
  out,
  "--target",
  "4x",
  "--calibration",
  text,
  "--calibration-tokens",
  "1024",
  ...more,
];

describe("compress", () => {
  test("writes a folder that inspect, verify, eval and generate can use", async () => {
    const out = join(work, "whole");
    const compressed = await succeed(...calibrated(out, "--json"));
    const report = JSON.parse(compressed.stdout);
    assert.ok(report.ratio >= 4, `${report.ratio}`);
    assert.ok(report.peakBytes > 0 && report.seconds > 0);

    const inspected = JSON.parse((await succeed("inspect", out, "--json")).stdout);
    assert.equal(inspected.weightBytes, report.weightBytes);
    assert.equal(inspected.ratio, report.ratio);
    await succeed("verify", out);

    const quality = await succeed(
      ...["eval", out, "--reference", model, "--text", text, "--context", "64", "--json"],
    );
    const { divergence, sameTop, tokensScored } = JSON.parse(quality.stdout);
    assert.ok(divergence.mean > 0 && sameTop > 0 && tokensScored > 0);

    const story = await succeed("generate", out, "--prompt", "the river", "--max-tokens", "8", "--json");
    assert.ok(JSON.parse(story.stdout).tokens > 0);
  });

  test("a dry run prints the plan that is followed, its exact size, and writes nothing", async () => {
    const unused = join(work, "unused");
    const planned = await succeed(...calibrated(unused, "--dry-run", "--json"));
    const { plan, weightBytes, forecast } = JSON.parse(planned.stdout);
    const inspected = JSON.parse((await succeed("inspect", join(work, "whole"), "--json")).stdout);
    assert.equal(weightBytes, inspected.weightBytes);
    assert.equal(plan.length, 1 + 3 * 7);
    assert.ok(forecast.seconds > 0 && forecast.memoryBytes > 1e8);
    assert.ok(!existsSync(unused) && !existsSync(`${unused}.partial`));
    const { stdout } = await succeed("compress", model, "--target", "4x", "--data-free", "--dry-run");
    assert.match(stdout, /^mlp\.up_proj +layer 0.*: [\d.]+ bits/m);
    assert.match(stdout, /^about (?:1 minute|(?:[2-9]|\d\d+) minutes) and /m);
  });

  test("the number of workers changes nothing", async () => {
    const outs = ["one", "two"].map((name) => join(work, name));
    for (const [i, out] of outs.entries()) {
      await succeed(...calibrated(out, "--workers", String(i + 1)));
    }
    assert.deepEqual(folderHashes(outs[0]), folderHashes(outs[1]));
  });

  test("every part of the method can be left out, and the manifest says so", async () => {
    const weights = new Set([folderHashes(join(work, "whole"))["model.safetensors"]]);
    for (const part of PARTS) {
      const out = join(work, part);
      await succeed(...calibrated(out, "--without", part));
      const { provenance } = JSON.parse(readFileSync(join(out, "pocketllm.json"), "utf8"));
      assert.deepEqual(provenance.options.without, [part]);
      weights.add(folderHashes(out)["model.safetensors"]);
    }
    assert.equal(weights.size, PARTS.length + 1);
    const alone = await run(
      "compress",
      model,
      "--out",
      join(work, "x"),
      "--data-free",
      "--without",
      "feedback",
    );
    assert.match(alone.stderr, /only of method trellis with calibration text/);
  });

  test("killed at any moment and resumed, the bytes are the same", { timeout: 240_000 }, async () => {
    const undisturbed = join(work, "undisturbed");
    const started = performance.now();
    await succeed(...calibrated(undisturbed));
    const duration = performance.now() - started;
    const expected = folderHashes(undisturbed);
    for (let round = 0; round < 5; round++) {
      const out = join(work, `killed-${round}`);
      let kills = 0;
      for (let attempt = 0; !existsSync(out); attempt++) {
        const resume = existsSync(`${out}.partial`) ? ["--resume"] : [];
        const { child, finished } = start(calibrated(out, ...resume));
        // Later each time, or a run that is always killed before its first matrix would never end.
        // The first well before half: the undisturbed run may have been the slower one on a busy machine.
        const patience = duration * (0.08 + 0.08 * round) + (attempt * duration) / 4;
        // Not between the folder's rename and the journal's removal: that leaves a whole folder beside a journal.
        const killed = sleep(patience, undefined, { ref: false }).then(
          () => existsSync(out) || child.kill("SIGKILL"),
        );
        const { code, signal, stderr } = await Promise.race([finished, killed.then(() => finished)]);
        if (signal === "SIGKILL") kills++;
        else assert.equal(code, 0, stderr);
      }
      assert.ok(kills > 0, "the run was too fast to be killed");
      assert.deepEqual(folderHashes(out), expected);
      assert.ok(!existsSync(`${out}.partial`));
    }
  });

  test("Ctrl-C keeps what is finished", async () => {
    const out = join(work, "interrupted");
    const { child, finished } = start(calibrated(out));
    // Its first write: by then the signal is listened to.
    while (!existsSync(`${out}.partial`)) await sleep(5);
    child.kill("SIGINT");
    const { code, stderr } = await finished;
    assert.equal(code, 1, stderr);
    assert.match(stderr, /interrupted/);
    assert.ok(!existsSync(out));
  });

  test("a full disk gives one clear line and resumes when there is room", async (t) => {
    const disk = join(work, "disk");
    mkdirSync(disk);
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", "size=96k", "tmpfs", disk], { stdio: "ignore" });
    } catch {
      t.skip("mounting a small tmpfs is not permitted here");
      return;
    }
    try {
      const out = join(disk, "out");
      const full = await run(...calibrated(out));
      assert.equal(full.code, 1, full.stderr);
      assert.equal(errorLines(full).length, 1, full.stderr);
      assert.match(full.stderr, /disk is full/);
      assert.ok(!existsSync(out));
      execFileSync("mount", ["-o", "remount,size=8m", disk]);
      await succeed(...calibrated(out, "--resume"));
      assert.deepEqual(folderHashes(out), folderHashes(join(work, "whole")));
    } finally {
      execFileSync("umount", [disk]);
    }
  });
});

describe("compress refuses", () => {
  const refusals: [string, number, RegExp, () => string[]][] = [
    ["a folder that exists", 2, /exists already/, () => ["compress", model, "--out", model, "--data-free"]],
    [
      "a target that is no ratio",
      2,
      /expected a ratio/,
      () => ["compress", model, "--out", join(work, "x"), "--target", "ten"],
    ],
    [
      "a target of 0x",
      2,
      /expected a ratio/,
      () => ["compress", model, "--out", join(work, "x"), "--target", "0x"],
    ],
    [
      "target and bits",
      2,
      /one of --target, --bits/,
      () => ["compress", model, "--out", join(work, "x"), "--target", "4x", "--bits", "4"],
    ],
    [
      "bits that are no number",
      2,
      /expected a number of bits/,
      () => ["compress", model, "--out", join(work, "x"), "--bits", "few"],
    ],
    [
      "an unknown method",
      2,
      /Allowed choices are trellis, meta/,
      () => ["compress", model, "--out", join(work, "x"), "--method", "zip"],
    ],
    [
      "a negative seed",
      2,
      /whole number/,
      () => ["compress", model, "--out", join(work, "x"), "--seed", "-1"],
    ],
    ["no output folder", 2, /--out/, () => ["compress", model]],
    ["an unknown option", 2, /unknown option/, () => ["compress", model, "--out", join(work, "x"), "--fast"]],
    ["an unknown command", 2, /unknown command/, () => ["squeeze", model]],
    [
      "a target out of reach",
      1,
      /out of reach/,
      () => ["compress", model, "--out", join(work, "x"), "--target", "16x", "--data-free"],
    ],
    [
      "calibration text that is missing",
      1,
      /cannot read|no such file/i,
      () => [
        "compress",
        model,
        "--out",
        join(work, "x"),
        "--target",
        "4x",
        "--calibration",
        join(work, "none.txt"),
      ],
    ],
    [
      "a model that is missing",
      1,
      /no-model/,
      () => ["compress", join(work, "no-model"), "--out", join(work, "x"), "--data-free"],
    ],
  ];
  for (const [name, code, message, args] of refusals) {
    test(name, async () => {
      const result = await run(...args());
      assert.equal(result.code, code, result.stderr);
      assert.equal(errorLines(result).length, 1, result.stderr);
      assert.match(result.stderr, message);
      assert.equal(result.stdout, "");
      for (const left of ["x", "x.partial"]) assert.ok(!existsSync(join(work, left)), left);
    });
  }

  test("every hostile checkpoint, with one line and nothing written", { timeout: 120_000 }, async () => {
    const { makeHostileCheckpoints } = await hostileModule<{
      makeHostileCheckpoints: (dir: string) => Promise<{ name: string; path: string }[]>;
    }>("checkpoints.mjs");
    const cases = await makeHostileCheckpoints(join(work, "hostile"));
    assert.ok(cases.length >= 12);
    for (const { name, path } of cases) {
      const out = join(work, "from-hostile");
      const result = await run("compress", path, "--out", out, "--target", "2x", "--data-free");
      assert.equal(result.code, 1, `${name}: ${result.stderr}`);
      assert.equal(errorLines(result).length, 1, `${name}: ${result.stderr}`);
      assert.ok(!result.stderr.includes("internal error"), `${name}: ${result.stderr}`);
      assert.ok(!existsSync(out), name);
      rmSync(`${out}.partial`, { recursive: true, force: true });
    }
  });
});
