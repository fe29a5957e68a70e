/** The command line as a whole: each command loads only its own code, so what lists them must know them all. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { VERSION } from "../version.js";

const run = (...args: string[]) =>
  spawnSync(process.execPath, [join(import.meta.dirname, "main.js"), ...args], { encoding: "utf8" });

test("the help lists every command that there is a file of, each with a line of its own", () => {
  const { status, stdout } = run("--help");
  assert.equal(status, 0);
  const listed = [...stdout.matchAll(/^ {2}([a-z]+) \[options\] ?\S* +\S/gm)].map(([, name]) => name);
  const files = readdirSync(join(import.meta.dirname, "commands"))
    .filter((name) => name.endsWith(".js") && !name.endsWith(".test.js"))
    .map((name) => name.slice(0, -3));
  assert.deepEqual(listed.sort(), files.sort());
});

test("the version, also short; help of one command; what there is not", () => {
  for (const flag of ["--version", "-V"]) assert.equal(run(flag).stdout, `${VERSION}\n`);
  for (const args of [
    ["help", "verify"],
    ["verify", "--help"],
  ])
    assert.match(run(...args).stdout, /^Usage: pocketllm verify \[options\] <folder>\n/);
  const unknown = run("compres");
  assert.equal(unknown.status, 2);
  assert.match(unknown.stderr, /^error: unknown command 'compres'\n\(Did you mean compress\?\)\n/);
});
