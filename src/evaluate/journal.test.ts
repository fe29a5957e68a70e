import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { UsageError } from "../errors.js";
import { JournalFile } from "./journal.js";

const temporary = mkdtempSync(join(tmpdir(), "pocketllm-journal-"));
after(() => rmSync(temporary, { recursive: true }));

async function begun(name: string): Promise<string> {
  const path = join(temporary, name);
  const journal = await JournalFile.open(path, "f1");
  for (let i = 0; i < 3; i++) await journal.put(`piece ${i}`, { value: i / 3, text: "é\n" });
  await journal.close();
  return path;
}

async function found(path: string): Promise<unknown[]> {
  const journal = await JournalFile.open(path, "f1");
  await journal.close();
  return [0, 1, 2].map((i) => journal.get(`piece ${i}`));
}

const piece = (i: number) => ({ value: i / 3, text: "é\n" });

test("what was put is there again, to the last bit", async () => {
  assert.deepEqual(await found(await begun("whole")), [piece(0), piece(1), piece(2)]);
});

test("a line cut short is dropped and overwritten", async () => {
  const path = await begun("cut");
  truncateSync(path, readFileSync(path).byteLength - 7);
  const journal = await JournalFile.open(path, "f1");
  assert.deepEqual([journal.size, journal.get("piece 2")], [2, undefined]);
  await journal.put("piece 2", piece(2));
  await journal.close();
  assert.deepEqual(await found(path), [piece(0), piece(1), piece(2)]);
});

test("from the first damaged line on nothing is believed", async () => {
  const path = await begun("damaged");
  const bytes = readFileSync(path);
  bytes[bytes.indexOf("piece 1")] ^= 1;
  writeFileSync(path, bytes);
  assert.deepEqual(await found(path), [piece(0), undefined, undefined]);
});

test("a death in the first line begins anew; another evaluation's journal and other files are refused", async () => {
  const path = await begun("first");
  truncateSync(path, 30);
  assert.deepEqual(await found(path), [undefined, undefined, undefined]);
  await assert.rejects(JournalFile.open(path, "f2"), (error) => {
    assert.ok(error instanceof UsageError);
    assert.match(error.message, /first is the journal of another evaluation: delete it/);
    return true;
  });
  const notes = join(temporary, "notes");
  writeFileSync(notes, "my notes\n");
  await assert.rejects(JournalFile.open(notes, "f1"), /notes is not the journal of an evaluation/);
  assert.equal(readFileSync(notes, "utf8"), "my notes\n");
});

test("a finished evaluation leaves nothing", async () => {
  const path = await begun("finished");
  await (await JournalFile.open(path, "f1")).remove();
  assert.throws(() => readFileSync(path), /ENOENT/);
});
