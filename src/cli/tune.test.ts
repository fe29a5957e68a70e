/** `tune` as a user runs it: it learns, survives being killed, and says in one line what is wrong. */
import assert from "node:assert/strict";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  assertRefused,
  errorLines,
  folderHashes,
  makeTinyModel,
  run,
  start,
  succeed,
  words,
} from "./run.test.util.js";

const work = mkdtempSync(join(tmpdir(), "pocketllm-tune-"));
const model = join(work, "model");
const folder = join(work, "coded");
const text = join(work, "text.txt");
const STEPS = 20;

before(async () => {
  await makeTinyModel(model);
  writeFileSync(text, Array.from({ length: 2000 }, (_, i) => `${words(i)} ${i}.`).join(" "));
  await succeed("compress", model, "--out", folder, "--target", "5x", "--data-free");
});
after(() => rmSync(work, { recursive: true, force: true }));

const tuned = (out: string, ...more: string[]) => [
  "tune",
  folder,
  "--distill",
  model,
  "--data",
  text,
  "--out",
  out,
  "--context",
  "64",
  "--tokens",
  String(64 * STEPS),
  ...more,
];

/** When the run to `out` has kept its first state, or is over. */
async function stateIn(out: string): Promise<void> {
  while (!existsSync(join(`${out}.tuning`, "state.safetensors")) && !existsSync(out)) await sleep(5);
}

describe("tune", () => {
  const whole = join(work, "whole");
  let duration = 0;

  test("brings the model nearer to the original at the same size", async () => {
    const log = join(work, "log.jsonl");
    const started = performance.now();
    const { stdout } = await succeed(...tuned(whole, "--json", "--log", log));
    duration = performance.now() - started;
    const report = JSON.parse(stdout);
    assert.equal(report.steps, STEPS);
    assert.ok(report.heldOutAfter < report.heldOutBefore, stdout);
    await succeed("verify", whole);
    const before = JSON.parse((await succeed("inspect", folder, "--json")).stdout);
    const after = JSON.parse((await succeed("inspect", whole, "--json")).stdout);
    assert.equal(after.weightBytes, before.weightBytes);
    assert.equal(report.weightBytes, before.weightBytes);
    const steps = readFileSync(log, "utf8").trimEnd().split("\n");
    assert.equal(steps.length, STEPS);
    assert.ok(!existsSync(`${whole}.tuning`));

    // `eval`, which shares nothing with the trainer's own measurement, finds it nearer too.
    const divergence = async (of: string) => {
      const evaluated = await run(
        "eval",
        of,
        "--reference",
        model,
        "--text",
        text,
        "--context",
        "64",
        "--json",
      );
      return JSON.parse(evaluated.stdout).divergence.mean as number;
    };
    assert.ok((await divergence(whole)) < (await divergence(folder)));
  });

  test("the number of workers changes nothing", async () => {
    const out = join(work, "one-worker");
    await succeed(...tuned(out, "--workers", "1"));
    assert.deepEqual(folderHashes(out), folderHashes(whole));
  });

  test("killed at any moment and resumed, the bytes are the same", { timeout: 120_000 }, async () => {
    for (let round = 0; round < 3; round++) {
      const out = join(work, `killed-${round}`);
      let kills = 0;
      let killedLast = false;
      for (let attempt = 0; !existsSync(out); attempt++) {
        const resume = existsSync(`${out}.tuning`) ? ["--resume"] : [];
        const { child, finished } = start(tuned(out, ...resume));
        // First once a state is there, then at any moment: before there is a new one, or while it is written.
        const moment =
          attempt === 0
            ? stateIn(out).then(() => sleep(60 * round))
            : sleep(duration * (0.35 + 0.2 * round) + (attempt * duration) / 4, undefined, { ref: false });
        const killed = moment.then(() => child.kill("SIGKILL"));
        const { code, signal, stderr } = await Promise.race([finished, killed.then(() => finished)]);
        killedLast = signal === "SIGKILL";
        if (killedLast) kills++;
        else assert.equal(code, 0, stderr);
      }
      assert.ok(kills > 0, "the run was too fast to be killed");
      assert.deepEqual(folderHashes(out), folderHashes(whole));
      // Killed between the output's last rename and the state's removal, the output is whole and a state is left.
      if (!killedLast) assert.ok(!existsSync(`${out}.tuning`));
      assert.ok(!existsSync(`${out}.partial`));
    }
  });

  test("Ctrl-C keeps what was trained, and only the same run goes on with it", async () => {
    const out = join(work, "interrupted");
    const { child, finished } = start(tuned(out));
    await stateIn(out);
    child.kill("SIGINT");
    const stopped = await finished;
    assert.equal(stopped.code, 1, stopped.stderr);
    assert.match(stopped.stderr, /interrupted/);
    assert.ok(!existsSync(out));

    const fresh = await run(...tuned(out));
    assert.equal(fresh.code, 2, fresh.stderr);
    assert.match(fresh.stderr, /unfinished run: run with --resume/);
    const other = await run(...tuned(out, "--resume", "--lr", "0.001"));
    assert.notEqual(other.code, 0);
    assert.equal(errorLines(other).length, 1, other.stderr);

    await succeed(...tuned(out, "--resume"));
    assert.deepEqual(folderHashes(out), folderHashes(whole));
  });
});

describe("tune refuses", () => {
  const file = (name: string, content: string | Uint8Array) => {
    const path = join(work, name);
    writeFileSync(path, content);
    return path;
  };
  const other = (out: string, changes: Record<string, string>, ...more: string[]) => {
    const args = tuned(out, ...more);
    for (const [option, value] of Object.entries(changes)) args[args.indexOf(option) + 1] = value;
    return args;
  };
  const refusals: [what: string, message: RegExp, args: () => Promise<string[]> | string[]][] = [
    [
      "a learning rate that diverges",
      /held-out loss has risen .* learning rate 50 is too high: try 5/,
      () => tuned(join(work, "x"), "--lr", "50"),
    ],
    [
      "an empty file",
      /empty\.txt is empty/,
      () => other(join(work, "x"), { "--data": file("empty.txt", "") }),
    ],
    [
      "rows of another kind",
      /wrong\.jsonl/,
      () => other(join(work, "x"), { "--data": file("wrong.jsonl", '{"title": "no text here"}\n') }),
    ],
    [
      "bytes that are no text",
      /binary\.txt/,
      () =>
        other(join(work, "x"), {
          "--data": file(
            "binary.txt",
            Uint8Array.from({ length: 4096 }, (_, i) => (i * 37) & 255),
          ),
        }),
    ],
    ["a missing file", /absent\.txt/, () => other(join(work, "x"), { "--data": join(work, "absent.txt") })],
    ["fewer tokens than a step", /tokens/, () => other(join(work, "x"), { "--tokens": "63" })],
    ["a context beyond the model's", /context/, () => other(join(work, "x"), { "--context": "100000" })],
    ["an output that exists", /exists already/, () => tuned(folder)],
    [
      "an original of another vocabulary",
      /vocabulary of 400/,
      async () => {
        await makeTinyModel(join(work, "other"), { vocab: 400 });
        return other(join(work, "x"), { "--distill": join(work, "other") });
      },
    ],
    [
      "an original with weights that are not numbers",
      /not finite|not a number|not numbers|NaN/i,
      () => {
        const broken = join(work, "nan");
        cpSync(model, broken, { recursive: true });
        const path = join(broken, "model.safetensors");
        const bytes = readFileSync(path);
        bytes.fill(0xff, bytes.length - 64);
        writeFileSync(path, bytes);
        return other(join(work, "x"), { "--distill": broken });
      },
    ],
  ];
  for (const [what, message, args] of refusals)
    test(what, async () => {
      const finished = await run(...(await args()));
      rmSync(join(work, "x.tuning"), { recursive: true, force: true });
      assertRefused(finished, message, join(work, "x"));
    });
});
