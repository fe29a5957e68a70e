/**
 * Benchmarks from a hub on this machine. What the questions must be was taken from lm-evaluation-harness 0.4.13 for
 * the same rows (fewshot_context and construct_requests of its own tasks).
 */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { gzipSync } from "node:zlib";
import { parquetWriteBuffer } from "hyparquet-writer";
import { InputError } from "../errors.js";
import { FakeHub } from "../hub/fake-hub.test.util.js";
import { Random } from "../random.js";
import { POCKET_STORIES } from "../runtime/real-models.test.util.js";
import { findTask } from "./hub-task.js";
import { readParquet } from "./parquet.js";
import { parquetOf } from "./parquet.test.util.js";
import { capitalize, strip } from "./python-text.js";
import { runEvaluation } from "./run.js";

const hub = new FakeHub();
const temporary = mkdtempSync(join(tmpdir(), "pocketllm-hub-task-"));
const CONVERSION = "refs/convert/parquet";
let homes = 0;

before(() => hub.listen());
after(async () => {
  await hub.close();
  rmSync(temporary, { recursive: true });
});
beforeEach(() => {
  hub.repositories.clear();
  hub.intercept = () => false;
  hub.requests.length = 0;
  process.env["HF_ENDPOINT"] = hub.endpoint;
  process.env["HF_HOME"] = join(temporary, String(homes++));
  delete process.env["HF_HUB_OFFLINE"];
});

type Rows = readonly Readonly<Record<string, unknown>>[];

function put(dataset: string, path: string, rows: Rows): string {
  return hub.put(`datasets/${dataset}`, { "README.md": "", [path]: parquetOf(rows) }, CONVERSION);
}

/** Contexts and continuations of each question, the right one, and the choices. */
async function questionsOf(source: string) {
  const { task } = await findTask(source);
  return task.questions.map(({ continuations, gold, choices }) => [
    ...continuations.map(({ context, continuation }) => [context, continuation]),
    gold,
    choices,
  ]);
}

async function refused(source: string, message: RegExp): Promise<void> {
  await assert.rejects(findTask(source), (error: Error) => {
    assert.ok(error instanceof InputError, error.stack);
    assert.match(error.message, message);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
}

const ARC = {
  id: "1",
  question: "What is wet?",
  choices: { text: ["fire", "water"], label: ["1", "2"] },
  answerKey: "2",
};
const ARC_PATH = "ARC-Easy/test/0000.parquet";

test("ARC and OpenBookQA: labels of any kind", async () => {
  put("allenai/ai2_arc", ARC_PATH, [ARC]);
  const context = "Question: What is wet?\nAnswer:";
  const expected = [[[context, " fire"], [context, " water"], 1, ["fire", "water"]]];
  assert.deepEqual(await questionsOf("arc_easy"), expected);
  assert.deepEqual(await questionsOf("allenai/ai2_arc:ARC-Easy"), expected);
  await refused(
    "allenai/ai2_arc",
    /has several benchmarks: give allenai\/ai2_arc:ARC-Easy or allenai\/ai2_arc:ARC-Challenge/,
  );
  await refused("arc_challenge", /allenai\/ai2_arc: has no parquet files of a split|no config ARC-Challenge/);
  put("allenai/openbookqa", "main/test/0000.parquet", [
    {
      question_stem: "The sun",
      choices: { text: ["is", "was", "\ufeffmay"], label: ["A", "B", "C"] },
      answerKey: " C",
    },
  ]);
  assert.deepEqual(await questionsOf("openbookqa"), [
    [["The sun", " is"], ["The sun", " was"], ["The sun", " \ufeffmay"], 2, ["is", "was", "\ufeffmay"]],
  ]);
});

test("HellaSwag: brackets, titles, double spaces and capitals as the harness's process_docs has them", async () => {
  const rows = [
    {
      activity_label: " Shaving",
      ctx_a: "[header] How to shave [title] Wet it.  Then  wait.",
      ctx_b: "the Man SAID",
      endings: ["[substeps] no [title] Yes.", " [a\nb]  c ", "[x]", "\ufeffmark"],
      label: "3",
    },
    { activity_label: "A", ctx_a: "b", ctx_b: "", endings: ["c", "d", "e", "f"], label: "0" },
  ];
  put("Rowan/hellaswag", "default/validation/0000.parquet", rows);
  const context = "Shaving: How to shave. Wet it. Then wait. The man said";
  const choices = [" no. Yes.", "[a\nb] c", "", "\ufeffmark"];
  assert.deepEqual(await questionsOf("hellaswag"), [
    [...choices.map((choice) => [context, ` ${choice}`]), 3, choices],
    [...["c", "d", "e", "f"].map((choice) => ["A: b", ` ${choice}`]), 0, ["c", "d", "e", "f"]],
  ]);
});

test("PIQA, WinoGrande, BoolQ in two forms, LAMBADA, MMLU", async () => {
  put("baber/piqa", "plain_text/validation/0000.parquet", [
    { goal: "Sit", sol1: "chair", sol2: "air", label: 0n },
  ]);
  const sit = "Question: Sit\nAnswer:";
  assert.deepEqual(await questionsOf("piqa"), [[[sit, " chair"], [sit, " air"], 0, ["chair", "air"]]]);
  put("allenai/winogrande", "winogrande_xl/validation/0000.parquet", [
    { sentence: "It fits _ as _ is small. ", option1: "the bag", option2: "the box", answer: "2" },
  ]);
  assert.deepEqual(await questionsOf("winogrande"), [
    [["It fits the bag", " as _ is small."], ["It fits the box", " as _ is small."], 1, null],
  ]);
  const passage = { passage: "Sea -- Wet.", question: "is it wet" };
  const wet = "Sea -- Wet.\nQuestion: is it wet?\nAnswer:";
  const yes = [[[wet, " no"], [wet, " yes"], 1, ["no", "yes"]]];
  put("aps/super_glue", "boolq/validation/0000.parquet", [{ ...passage, label: 1n }]);
  put("google/boolq", "default/validation/0000.parquet", [{ ...passage, answer: true }]);
  assert.deepEqual(await questionsOf("boolq"), yes);
  assert.deepEqual(await questionsOf("google/boolq"), yes);
  put("EleutherAI/lambada_openai", "default/test/0000.parquet", [{ text: "a  b\nc d" }, { text: "one" }]);
  assert.deepEqual(await questionsOf("lambada_openai"), [
    [["a  b\nc", " d"], 0, null],
    [["", " one"], 0, null],
  ]);
  const row = {
    question: "\u0085 2+2?\n",
    choices: ["1", "2", "3", "4"],
    answer: 3n,
    subject: "college_mathematics",
  };
  const asked = (subject: string) =>
    `The following are multiple choice questions (with answers) about ${subject}.\n\n2+2?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer:`;
  const letters = ["A", "B", "C", "D"];
  const sums = (subject: string) => [
    [...letters.map((letter) => [asked(subject), ` ${letter}`]), 3, letters],
  ];
  hub.put(
    "datasets/cais/mmlu",
    { "all/test/0000.parquet": parquetOf([row]), "world_religions/test/0000.parquet": parquetOf([row]) },
    CONVERSION,
  );
  assert.deepEqual(await questionsOf("mmlu"), sums("college mathematics"));
  assert.deepEqual(await questionsOf("cais/mmlu:all"), sums("college mathematics"));
  for (const name of ["mmlu_world_religions", "cais/mmlu:world_religions"]) {
    assert.deepEqual(await questionsOf(name), sums("world religions"));
    assert.equal((await findTask(name)).task.name, "mmlu_world_religions");
  }
});

test("Python's strip and capitalize", () => {
  const cases: [string, string][] = [
    ["", ""],
    ["ABC Def", "Abc def"],
    ["ßA", "Ssa"],
    ["ǆX", "ǅx"],
    ["ΑΣ", "Ας"],
    ["ŉA", "ʼNa"],
    ["ﬁSH", "Fish"],
    ["ᾳX", "ᾼx"],
    ["აX", "აx"],
    ["\u{10428}A", "\u{10400}a"],
  ];
  for (const [text, expected] of cases) assert.equal(capitalize(text), expected);
  assert.equal(strip("\u0085\u001f \u3000\ufeffa\ufeff\u2029\n"), "\ufeffa\ufeff");
});

test("several shards, a file's own layout, a pinned commit, offline; the file says what it was made from", async () => {
  const rows = (n: number) => [{ text: `row ${n}` }, { text: `row ${n} too` }];
  const commit = hub.put(
    "datasets/EleutherAI/lambada_openai",
    { "default/test/0001.parquet": parquetOf(rows(1)), "default/test/0000.parquet": parquetOf(rows(0)) },
    CONVERSION,
  );
  const { task, file } = await findTask("lambada_openai");
  assert.deepEqual(
    task.questions.map(({ continuations: [{ continuation }] }) => continuation),
    [" 0", " too", " 1", " too"],
  );
  assert.equal(file.name, "lambada_openai");
  assert.equal(file.dataset?.commit, commit);
  assert.deepEqual(
    file.dataset?.files.map(({ name }) => name),
    ["default/test/0000.parquet", "default/test/0001.parquet"],
  );
  assert.equal(
    file.bytes,
    file.dataset!.files.reduce((sum, { bytes }) => sum + bytes, 0),
  );
  hub.takeDownloads();
  assert.deepEqual((await findTask(`EleutherAI/lambada_openai@${commit}`)).file, file);
  assert.deepEqual(hub.takeDownloads(), []);
  process.env["HF_HUB_OFFLINE"] = "1";
  assert.deepEqual((await findTask("lambada_openai")).file, file);
  assert.equal(hub.requests.length, 0);
  await refused("hellaswag", /Rowan\/hellaswag.*not in the cache/);
  delete process.env["HF_HUB_OFFLINE"];

  hub.put("datasets/baber/piqa", {
    "data/validation-00000-of-00001.parquet": parquetOf([{ goal: "Sit", sol1: "a", sol2: "b", label: 1n }]),
  });
  assert.equal((await findTask("piqa")).file.dataset?.config, "default");
  hub.put("datasets/ybisk/piqa", {
    "data/validation-00000-of-00002.parquet": parquetOf([{ goal: "Sit", sol1: "a", sol2: "b", label: 1n }]),
  });
  await refused("ybisk/piqa", /is not there as a whole: 1 parquet files/);
});

test("a file here is meant; what is no benchmark, not there, or not in its form is one line", async () => {
  const old = process.cwd();
  process.chdir(temporary);
  try {
    writeFileSync("arc_easy", '{"context": "a", "target": "b"}\n');
    await refused("arc_easy", /arc_easy is no task file/);
  } finally {
    process.chdir(old);
  }
  assert.equal(hub.requests.length, 0);
  await refused("nothing.jsonl", /cannot read nothing\.jsonl/);
  await refused("some/where.jsonl", /cannot read some\/where\.jsonl/);
  await refused("squad", /cannot read squad/);
  await refused(
    "org/unknown",
    /org\/unknown: no such file here, and no benchmark that is known; there are arc_easy, /,
  );
  await refused(
    "allenai/openbookqa:additional",
    /is no benchmark that is known; give allenai\/openbookqa:main/,
  );
  await refused(
    "arc_easy",
    /allenai\/ai2_arc@refs\/convert\/parquet: no such file or folder here, and no such data set/,
  );
  put("allenai/ai2_arc", ARC_PATH, [{ id: "1", question: "a", answerKey: "A" }]);
  await refused(
    "arc_easy",
    /ARC-Easy\/test\/0000\.parquet: has no column choices, only id, question, answerKey/,
  );
  put("allenai/ai2_arc", ARC_PATH, [ARC, { ...ARC, answerKey: "C" }]);
  await refused("arc_easy", /ARC-Easy test row 1: answerKey is not one of choices\.label/);
  put("allenai/ai2_arc", ARC_PATH, [{ ...ARC, question: 7n }]);
  await refused("arc_easy", /row 0: question is not a text/);
  put("allenai/ai2_arc", ARC_PATH, [{ ...ARC, choices: ["a", "b"] }]);
  await refused("arc_easy", /row 0: choices\.text is not a list of 2 to 256 texts/);
  put("allenai/ai2_arc", ARC_PATH, [ARC, { ...ARC, question: null }]);
  await refused("arc_easy", /row 1: question is not a text/);
  put("allenai/ai2_arc", ARC_PATH, [{ ...ARC, question: "x".repeat(2 ** 20 + 1) }]);
  await refused("arc_easy", /row 0: question is not a text/);
  hub.put("datasets/allenai/ai2_arc", { [ARC_PATH]: "PAR1 nonsense PAR1" }, CONVERSION);
  await refused("arc_easy", /cannot be read as parquet/);
  put("baber/piqa", "default/validation/0000.parquet", [{ goal: "a", sol1: "b", sol2: "c", label: -1n }]);
  await refused("piqa", /row 0: label is not a number from 0 to 1/);
});

test("parquet that claims too much, or never ends, is refused", async () => {
  const columns = ["text"];
  const good = parquetOf([{ text: "a".repeat(50) }, { text: "b" }]) as Uint8Array<ArrayBuffer>;
  assert.equal((await readParquet(good, columns, "good")).length, 2);
  // The first page's header is right after the magic; its sizes and counts are zigzag numbers of a byte or two.
  const random = new Random(1);
  let refusals = 0;
  for (let i = 0; i < 40; i++) {
    const bad = good.slice();
    const at = i < 20 ? 4 + random.below(40) : random.below(bad.length - 5);
    bad.set(i % 3 === 0 ? [0xfe, 0xff, 0xff, 0xff, 0x0f] : [random.below(256)], at);
    try {
      await readParquet(bad, columns, "bad", 1);
    } catch (error) {
      assert.ok(error instanceof InputError, (error as Error).stack);
      assert.match(error.message, /^bad: [ -~]+$/);
      refusals++;
    }
  }
  assert.ok(refusals > 10, String(refusals));
});

test("compressed by gzip; not UTF-8", async () => {
  const column = { name: "text", data: ["abc", "def"] };
  const zipped = parquetWriteBuffer({
    columnData: [{ ...column, type: "STRING" }],
    codec: "GZIP",
    compressors: { GZIP: (input) => new Uint8Array(gzipSync(input)) },
  });
  assert.deepEqual(await readParquet(new Uint8Array(zipped), ["text"], "zipped"), [
    { text: "abc" },
    { text: "def" },
  ]);
  const bytes = parquetWriteBuffer({
    columnData: [{ name: "text", data: [Uint8Array.of(0xff, 0x41)], type: "BYTE_ARRAY" }],
  });
  await assert.rejects(
    readParquet(new Uint8Array(bytes), ["text"], "bytes"),
    /bytes: cannot be read as parquet/,
  );
});

test("eval: the same figures as from a task file, and what identifies the data", async () => {
  const rows = [
    ARC,
    { ...ARC, question: "Who barks?", choices: { text: ["dog", "cat"], label: ["A", "B"] }, answerKey: "A" },
  ];
  const commit = put("allenai/ai2_arc", ARC_PATH, rows);
  const path = join(temporary, "arc_easy.jsonl");
  const lines = rows.map(({ question, choices, answerKey }) => ({
    context: `Question: ${question}\nAnswer:`,
    choices: choices.text,
    gold: choices.label.indexOf(answerKey),
  }));
  writeFileSync(path, lines.map((line) => `${JSON.stringify(line)}\n`).join(""));
  const common = { model: POCKET_STORIES, threads: 1 };
  const fromFile = await runEvaluation({ ...common, tasks: [path] });
  const fromHub = await runEvaluation({ ...common, tasks: ["arc_easy"] });
  assert.deepEqual(fromHub.tasks, fromFile.tasks);
  const [file] = fromHub.taskFiles!;
  assert.match(file.sha256, /^[0-9a-f]{64}$/);
  assert.deepEqual(file.dataset, {
    ...{ id: "allenai/ai2_arc", config: "ARC-Easy", split: "test", commit },
    files: [{ name: ARC_PATH, bytes: file.bytes, sha256: file.sha256 }],
  });
  await assert.rejects(
    runEvaluation({ ...common, tasks: ["arc_easy", "allenai/ai2_arc:ARC-Easy"] }),
    /named arc_easy/,
  );
});
