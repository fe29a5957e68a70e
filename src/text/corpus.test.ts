import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { InputError } from "../errors.js";
import { readCorpus } from "./corpus.js";

const temporary = mkdtempSync(join(tmpdir(), "pocketllm-corpus-"));
after(() => rmSync(temporary, { recursive: true }));

function file(name: string, contents: string | Uint8Array): string {
  const path = join(temporary, name);
  writeFileSync(path, contents);
  return path;
}

test("plain text is one document; entries are one each, by text or as an instruction", async () => {
  const text = { text: "one\n\ntwo" };
  const alpaca = { instruction: "Add", input: "1 and 2", output: "3" };
  const expected = ["one\n\ntwo", "Add\n1 and 2\n\n3"];
  assert.deepEqual(await readCorpus(file("a.txt", "one\n\ntwo\n")), ["one\n\ntwo\n"]);
  assert.deepEqual(await readCorpus(file("a.json", JSON.stringify([text, alpaca]))), expected);
  const lines = `${JSON.stringify(text)}\n\n${JSON.stringify(alpaca)}`;
  assert.deepEqual(await readCorpus(file("a.jsonl", lines)), expected);
});

test("files without text: one line that names file and line or entry", async () => {
  const cases: [name: string, contents: string | Uint8Array, message: RegExp][] = [
    ["empty.txt", "", /empty\.txt is empty/],
    ["blank.txt", " \n", /blank\.txt contains no text/],
    ["blank.jsonl", '{"text": " "}\n', /blank\.jsonl contains no text/],
    ["bytes.txt", Uint8Array.of(97, 10, 255), /bytes\.txt line 2 is not UTF-8/],
    ["entry.json", '[{"text": "a"}, {"body": "b"}]', /entry\.json entry 2: expected an object with "text"/],
    ["object.json", '{"text": "a"}', /object\.json: expected a JSON array/],
    ["line.jsonl", '{"text": "a"}\n["b"]\n', /line\.jsonl line 2: expected an object/],
  ];
  for (const [name, contents, message] of cases)
    await assert.rejects(readCorpus(file(name, contents)), (error) => {
      assert.ok(error instanceof InputError, String(error));
      assert.match(error.message, message);
      return true;
    });
});
