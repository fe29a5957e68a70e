/** `pocketllm generate` and `chat` as a user runs them, on the repository's story model. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { POCKET_STORIES } from "../../runtime/real-models.test.util.js";

const MAIN = join(import.meta.dirname, "../main.js");

function pocketllm(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [MAIN, ...args], {
    encoding: "utf8",
    input: "",
  });
  return { status, stdout, stderr };
}

/** Progress lines aside, what an error says: one line. */
function errorLine(stderr: string): string {
  const lines = stderr.split("\n").filter((line) => line.startsWith("pocketllm: "));
  assert.equal(lines.length, 1, stderr);
  assert.ok(!stderr.includes("    at "), "no stack trace");
  return lines[0];
}

const story = ["generate", POCKET_STORIES, "--prompt", "Once upon a time", "--max-tokens", "16"];

test("text on stdout, speed on stderr; --json gives the same text and the figures", () => {
  const plain = pocketllm(...story);
  assert.equal(plain.status, 0, plain.stderr);
  assert.match(plain.stdout, /^, there was a .*\n$/);
  assert.match(
    plain.stderr,
    /prompt: \d+ tokens at [\d.]+ tokens\/s; answer: 16 tokens at [\d.]+ tokens\/s\n/,
  );
  const json = pocketllm(...story, "--json");
  assert.equal(json.status, 0, json.stderr);
  const { text, ...rest } = JSON.parse(json.stdout) as Record<string, unknown>;
  assert.equal(`${text}\n`, plain.stdout);
  assert.equal(rest["tokens"], 16);
  assert.equal(rest["finishReason"], "length");
  for (const key of ["promptTokens", "prefillTokensPerSecond", "decodeTokensPerSecond"]) {
    assert.ok((rest[key] as number) > 0, key);
  }
});

test("a stop text ends it; a seed repeats it", () => {
  const stopped = pocketllm(...story, "--stop", " was", "--json");
  const { text, finishReason } = JSON.parse(stopped.stdout) as Record<string, unknown>;
  assert.deepEqual({ text, finishReason }, { text: ", there", finishReason: "stop" });
  const draw = (seed: string) => pocketllm(...story, "--temperature", "1.2", "--seed", seed).stdout;
  assert.equal(draw("1"), draw("1"));
  assert.notEqual(draw("1"), draw("2"));
});

test("wrong options: exit code 2; what the model cannot do: exit code 1; one line each", () => {
  for (const option of [
    ["--top-p", "2"],
    ["--top-p", "0"],
    ["--max-tokens", "0"],
    ["--temperature", "hot"],
    ["--seed", "-1"],
  ]) {
    const { status, stdout } = pocketllm(...story, ...option);
    assert.equal(status, 2, option.join(" "));
    assert.equal(stdout, "");
  }
  assert.equal(pocketllm("generate", POCKET_STORIES).status, 2, "no prompt");
  const long = pocketllm(...story, "--max-tokens", "600");
  assert.equal(long.status, 1);
  assert.match(errorLine(long.stderr), /600 new ones exceed the context of 512/);
  const chat = pocketllm("chat", POCKET_STORIES);
  assert.equal(chat.status, 1);
  assert.match(errorLine(chat.stderr), /no chat template/);
});

test("--json-schema: the text fits it; a file that is none is one line", () => {
  const folder = mkdtempSync(join(tmpdir(), "pocketllm-schema-"));
  try {
    const schema = join(folder, "schema.json");
    const with16 = [...story.slice(0, -1), "60", "--temperature", "1"];
    const properties = { sad: { type: "boolean" }, name: { type: "string", maxLength: 8 } };
    writeFileSync(schema, JSON.stringify({ type: "object", properties, required: ["sad", "name"] }));
    const found = pocketllm(...with16, "--json-schema", schema);
    assert.equal(found.status, 0, found.stderr);
    const { sad, name } = JSON.parse(found.stdout) as Record<string, unknown>;
    assert.ok(typeof sad === "boolean" && typeof name === "string", found.stdout);
    writeFileSync(schema, '{"type": "integer", "multipleOf": 3}');
    const refused = pocketllm(...with16, "--json-schema", schema);
    assert.equal(refused.status, 1);
    assert.match(errorLine(refused.stderr), /the JSON schema: "multipleOf" cannot be enforced/);
    writeFileSync(schema, "{");
    const damaged = pocketllm(...with16, "--json-schema", schema);
    assert.match(errorLine(damaged.stderr), /schema\.json: is no JSON Schema that can be read/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
