import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { InputError } from "../errors.js";
import { type LogEntry, TrainingLog } from "./log.js";

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "pocketllm-tune-log-"));
});
after(() => rm(folder, { recursive: true, force: true }));

const entry = (step: number): LogEntry => ({
  step,
  loss: 3 / (step + 1),
  learningRate: 1e-4 * step,
  gradientNorm: 1.5,
  tokensPerSecond: 100,
  ...(step % 3 === 2 ? { heldOut: 2.5 } : {}),
});

async function write(path: string, from: number, to: number): Promise<void> {
  const log = await TrainingLog.open(path, from);
  for (let step = from; step < to; step++) await log.append(entry(step));
  await log.flush();
  await log.close();
}

test("one object a line; a resumed log is an uninterrupted one", async () => {
  const whole = join(folder, "whole.jsonl");
  await write(whole, 0, 12);
  const expected = await readFile(whole, "utf8");
  const lines = expected.trimEnd().split("\n");
  assert.deepEqual(
    lines.map((line) => JSON.parse(line) as LogEntry),
    Array.from({ length: 12 }, (_, i) => entry(i)),
  );
  for (const [done, resumed] of [
    [7, 7],
    [9, 4],
    [5, 0],
    [12, 11],
  ]) {
    const path = join(folder, `resumed-${done}-${resumed}.jsonl`);
    await write(path, 0, done);
    await write(path, resumed, 12);
    assert.equal(await readFile(path, "utf8"), expected);
  }
});

test("a last line that a crash cut off is taken away, wherever it was cut", async () => {
  const path = join(folder, "cut.jsonl");
  await write(path, 0, 3);
  const whole = await readFile(path);
  const two = whole.lastIndexOf(10, whole.length - 2) + 1;
  for (let end = two; end < whole.length; end++) {
    await writeFile(path, whole.subarray(0, end));
    await write(path, 2, 3);
    assert.deepEqual(await readFile(path), whole);
  }
});

test("a log that lost its first lines is gone on with", async () => {
  const path = join(folder, "late.jsonl");
  await write(path, 5, 7);
  await write(path, 7, 8);
  assert.equal((await readFile(path, "utf8")).trimEnd().split("\n").length, 3);
});

test("any other file is refused and left as it was", async () => {
  const line = (step: number) => `${JSON.stringify(entry(step))}\n`;
  const others: [string, RegExp][] = [
    ["my notes\n", /line 1/],
    ["my notes", /line 1/],
    [`${line(0)}notes\n${line(1)}`, /line 2/],
    [`${line(0)}notes`, /line 2/],
    [`${line(1)}${line(1)}`, /line 2/],
    [`{"step":0,"loss":"x"}\n`, /line 1/],
    ["\n", /line 1/],
    ["null\n", /line 1/],
  ];
  const path = join(folder, "other.txt");
  for (const [content, message] of others) {
    await writeFile(path, content);
    await assert.rejects(TrainingLog.open(path, 0), (error: unknown) => {
      assert.ok(error instanceof InputError);
      assert.match(error.message, /is not the log of a training run/);
      assert.match(error.message, message);
      return true;
    });
    assert.equal(await readFile(path, "utf8"), content);
  }
  await assert.rejects(TrainingLog.open(folder, 0), InputError);
  await assert.rejects(TrainingLog.open(join(folder, "no/such/log"), 0), /cannot write/);
});

test("numbers that are not finite are not written", async () => {
  const path = join(folder, "nan.jsonl");
  const log = await TrainingLog.open(path, 0);
  await assert.rejects(log.append({ ...entry(0), loss: Number.NaN }), RangeError);
  await log.close();
  assert.equal(await readFile(path, "utf8"), "");
});
