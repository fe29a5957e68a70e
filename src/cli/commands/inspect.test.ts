/** `inspect` and `verify` as a user runs them. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { writeTinyFolder } from "../../container/tiny-folder.test.util.js";
import { errorLines, run, succeed } from "../run.test.util.js";

let work: string;
let folder: string;
before(async () => {
  work = await mkdtemp(join(tmpdir(), "pocketllm-inspect-"));
  folder = join(work, "tiny");
  await writeTinyFolder({ out: folder });
});
after(() => rm(work, { recursive: true, force: true }));

test("inspect --json has the sizes of the files on disk", async () => {
  const { stdout } = await succeed("inspect", folder, "--json");
  const report = JSON.parse(stdout);
  const { size } = await stat(join(folder, "model.safetensors"));
  assert.equal(report.weightBytes, size);
  assert.equal(report.ratio, (2 * report.parameters) / size);
  assert.equal(report.bitsPerWeight, (8 * size) / report.parameters);
  assert.deepEqual(
    report.parts.map(({ name }: { name: string }) => name),
    ["embedding and head", "attention", "feed-forward", "norms and biases", "file headers"],
  );
  assert.equal(report.tensors, undefined);
});

test("inspect prints a table, and every tensor when asked", async () => {
  const short = await run("inspect", folder);
  assert.match(short.stdout, /^ {2}attention +\d+ +[\d.]+ MB +[\d.]+$/m);
  assert.doesNotMatch(short.stdout, /q_proj/);
  const long = await run("inspect", folder, "--layers");
  assert.match(long.stdout, /model\.layers\.1\.self_attn\.q_proj trellis \[16, 16\] [\d.]+ bits/);
  assert.match(long.stdout, /lm_head trellis \[32, 16\] .*rows 0-8: .*rows 8-32: /);
});

test("verify passes a sound folder and names what is damaged in another", async () => {
  const sound = await succeed("verify", folder, "--json");
  const report = JSON.parse(sound.stdout);
  assert.equal(report.files, (await readdir(folder)).length);
  assert.deepEqual(report.problems, []);

  const damaged = join(work, "damaged");
  await writeTinyFolder({ out: damaged });
  const path = join(damaged, "model.safetensors");
  const bytes = await readFile(path);
  bytes[bytes.length - 1] ^= 1;
  await writeFile(path, bytes);
  const broken = await run("verify", damaged);
  assert.equal(broken.code, 1);
  assert.equal(errorLines(broken).length, 1);
  assert.match(errorLines(broken)[0], /tensor "model\.norm\.weight" in model\.safetensors does not match/);
});

test("what is no model is one line and exit code 1, a wrong option 2", async () => {
  for (const command of ["inspect", "verify"]) {
    const missing = await run(command, join(work, "nowhere"));
    assert.equal(missing.code, 1, command);
    assert.equal(errorLines(missing).length, 1, missing.stderr);
    assert.equal((await run(command, folder, "--frobnicate")).code, 2);
  }
});
