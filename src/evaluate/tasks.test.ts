import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { InputError, UsageError } from "../errors.js";
import { alphabetModel } from "../runtime/alphabet-model.test.util.js";
import { loadModel } from "../runtime/load.js";
import type { Session } from "../runtime/model.js";
import { POCKET_STORIES } from "../runtime/real-models.test.util.js";
import { byteLevelFiles, sentencePieceFiles } from "../text/fixtures.test.util.js";
import { createTokenizer } from "../text/tokenizer.js";
import { tinyConfig } from "../transformer/tiny-model.test.util.js";
import { encodeContinuation, scoreContinuations } from "./continuation.js";
import { readTask, type Task } from "./task-file.js";
import { evaluateTasks, type TaskModel } from "./tasks.js";

const temporary = mkdtempSync(join(tmpdir(), "pocketllm-tasks-"));
after(() => rmSync(temporary, { recursive: true }));

function file(name: string, contents: string): string {
  const path = join(temporary, name);
  writeFileSync(path, contents);
  return path;
}

async function task(name: string, ...questions: object[]): Promise<Task> {
  return await readTask(file(`${name}.jsonl`, questions.map((q) => `${JSON.stringify(q)}\n`).join("")));
}

function near(actual: number | null | undefined, expected: number, tolerance = 1e-6): void {
  assert.ok(
    typeof actual === "number" && Math.abs(actual - expected) <= tolerance,
    `${actual} is not ${expected}`,
  );
}

/** Nats of a token that the alphabet model expects, and of any other: logits 10 and -10 of 267 tokens. */
const RIGHT = -Math.log(1 + 266 * Math.exp(-20));
const WRONG = RIGHT - 20;

test("multiple choice by hand: acc by the sum, accNorm by the character, accBytes by the byte", async () => {
  const model = alphabetModel();
  const questions = [
    // " b": 2 wrong, -40. " xbcdefghij": 3 wrong, 8 right, -60 over 10 characters.
    { context: "Q", choices: ["b", "xbcdefghij"], gold: 0 },
    { context: "Q", choices: ["b", "xbcdefghij"], gold: 1 },
    // " é": 3 wrong, -60: over 1 character it loses to " b", over 2 bytes it wins.
    { context: "Q", choices: ["b", "é"], gold: 1 },
    // " abc": 1 wrong, -20.
    { context: "Q", choices: ["xy", "b", "abc"], gold: 2 },
  ];
  const { alphabet } = await evaluateTasks({ model, tasks: [await task("alphabet", ...questions)] });
  assert.deepEqual([alphabet.n, alphabet.acc, alphabet.accNorm, alphabet.accBytes], [4, 2 / 4, 2 / 4, 3 / 4]);
  // sqrt(p (1 - p) / (n - 1)).
  near(alphabet.stderr, Math.sqrt((0.5 * 0.5) / 3), 1e-12);
  near(alphabet.accBytesStderr, Math.sqrt((0.75 * 0.25) / 3), 1e-12);
  assert.equal(model.openSessions(), 0);
});

test("likelihoods by hand", async () => {
  const model = alphabetModel();
  const { tokenizer } = model;
  const encode = (context: string, continuation: string) =>
    encodeContinuation(tokenizer, { context, continuation }, { limit: 127, bos: false, where: "here" });
  const session = model.createSession(64);
  const texts = [" b", " abc", " abx", "bc"];
  const scores = await scoreContinuations(
    session,
    267,
    texts.map((text) => encode("Qa", text)),
  );
  const expected = [2 * WRONG, WRONG + 3 * RIGHT, 2 * WRONG + 2 * RIGHT, 2 * RIGHT];
  for (const [i, { logLikelihood, greedy }] of scores.entries()) {
    near(logLikelihood, expected[i], 1e-5);
    assert.equal(greedy, i === 3);
  }
});

test("the last word: greedy match of every token, perplexity of a word", async () => {
  const model = alphabetModel({ follows: { t: " ", " ": "d" } });
  const questions = [
    { context: "t", target: "de" },
    { context: "st", target: "dx" },
    { context: "t  ", target: "de" },
  ];
  const { words } = await evaluateTasks({ model, tasks: [await task("words", ...questions)] });
  // The third moves its two spaces: "t" + "   de", in which " " after " " is wrong twice.
  const logs = [3 * RIGHT, 2 * RIGHT + WRONG, 3 * RIGHT + 2 * WRONG + RIGHT - RIGHT];
  assert.deepEqual([words.n, words.acc], [3, 1 / 3]);
  assert.equal("accNorm" in words, false);
  const average = logs.reduce((a, b) => a + b) / 3;
  near(Math.log(words.perplexity!), -average, 1e-5);
  const deviation = Math.sqrt(logs.reduce((sum, v) => sum + (v - average) ** 2, 0) / 2);
  near(words.perplexityStderr! / words.perplexity!, deviation / Math.sqrt(3), 1e-5);
});

test("several contexts before one continuation", async () => {
  const model = alphabetModel({ follows: { t: " ", " ": "d" } });
  const question = { contexts: ["the cat", "the dog"], continuation: "de", gold: 0 };
  const other = { ...question, continuation: " de", gold: 1 };
  const { grande } = await evaluateTasks({ model, tasks: [await task("grande", question, other)] });
  assert.deepEqual([grande.n, grande.acc, grande.accNorm], [2, 0.5, undefined]);
});

test("tokens are divided where the context's own end; white space at its end moves", () => {
  const tokenizer = createTokenizer(byteLevelFiles());
  const ids = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });
  const encode = (context: string, continuation: string, limit = 100, bos = false) => {
    const options = { limit, bos, where: "line 3" };
    const { ids: all, start } = encodeContinuation(tokenizer, { context, continuation }, options);
    return [[...all.subarray(0, start)], [...all.subarray(start)]];
  };
  assert.deepEqual(encode("a", " the b"), [ids("a"), ids(" the b")]);
  assert.deepEqual(encode("a ", "the b"), [ids("a"), ids(" the b")]);
  assert.deepEqual(encode("a\n", " b"), [ids("a"), ids("\n b")]);
  // "hello" is one token, "hel" two: of the whole's tokens only those after the second are left.
  assert.equal(ids("hello").length, 1);
  assert.deepEqual(encode("hel", "lo b"), [
    ids("hel"),
    [...ids("hello"), ...ids(" b")].slice(ids("hel").length),
  ]);
  assert.deepEqual(encode("", " b"), [[256], ids(" b")]);
  assert.deepEqual(encode("", "<|im_start|>b"), [[256], ids("b")]);
  // What is too long loses its beginning.
  assert.deepEqual(encode("abcdef", " x", 5), [ids("def"), ids(" x")]);
  assert.throws(() => encode("abc", " xyz", 4), /line 3: a continuation of 4 tokens leaves no context/);
  assert.throws(() => encode(" \n", "x"), /line 3: the context is white space only/);
});

test("BOS begins a context only when it is asked for and the tokenizer adds it", () => {
  const withBos = createTokenizer(sentencePieceFiles());
  const pair = { context: "ab", continuation: " the" };
  const first = (bos: boolean) =>
    encodeContinuation(withBos, pair, { limit: 50, bos, where: "" }).ids[0] === withBos.bosTokenId;
  assert.deepEqual([first(false), first(true)], [false, true]);
});

/** A model whose every prediction depends on all tokens before it, so that a stale cache shows. */
function prefixModel(contextLength = 200) {
  const tokenizer = createTokenizer(byteLevelFiles());
  const { vocabularySize } = tokenizer;
  const row = (ids: readonly number[]) => {
    let hash = 17;
    for (const id of ids) hash = (Math.imul(hash, 31) + id) | 0;
    return Float32Array.from({ length: vocabularySize }, (_, i) => 4 * Math.sin(hash + i * i));
  };
  const lengths: number[] = [];
  const createSession = (capacity: number): Session => {
    let held: number[] = [];
    return {
      capacity,
      get position() {
        return held.length;
      },
      async forward(ids, { logits = "last" } = {}) {
        lengths.push(ids.length);
        const rows = [...ids].map((id) => row((held = [...held, id])));
        assert.ok(held.length <= capacity);
        return Float32Array.from((logits === "all" ? rows : rows.slice(-1)).flatMap((r) => [...r]));
      },
      truncate(to) {
        assert.ok(to <= held.length);
        held = held.slice(0, to);
      },
      shift() {
        throw new Error("evaluation does not shift");
      },
      free() {},
    };
  };
  const config = tinyConfig({ vocabularySize, contextLength });
  const model: TaskModel = { config, contextLength, tokenizer, createSession };
  return { model, row, lengths, vocabularySize };
}

const QUESTIONS: [context: string, continuations: string[]][] = [
  ["Where is the cat", [" here", " there", " then"]],
  ["yes or no", [" y", " n"]],
  ["a", [" b", " b", " b c"]],
  ["hel", ["lo", "l", " hello hello"]],
  ["the  ", ["x", "the", "the the the the"]],
];

test("shared prefixes and rewinding give what each choice alone gives", async () => {
  const { model, row, lengths, vocabularySize } = prefixModel();
  for (const [context, continuations] of QUESTIONS) {
    const encoded = continuations.map((continuation) =>
      encodeContinuation(model.tokenizer, { context, continuation }, { limit: 199, bos: false, where: "" }),
    );
    const scores = await scoreContinuations(model.createSession(200), vocabularySize, encoded);
    for (const [i, { ids, start }] of encoded.entries()) {
      let sum = 0;
      let greedy = true;
      for (let t = start; t < ids.length; t++) {
        const logits = [...row([...ids.subarray(0, t)])];
        sum += logits[ids[t]] - Math.log(logits.reduce((s, v) => s + Math.exp(v), 0));
        greedy &&= logits[ids[t]] === Math.max(...logits);
      }
      near(scores[i].logLikelihood, sum, 1e-9);
      assert.equal(scores[i].greedy, greedy);
    }
  }
  // One token each after the same context: a single forward, which is the prefill.
  lengths.length = 0;
  const single = [" ", "y"].map((continuation) =>
    encodeContinuation(
      model.tokenizer,
      { context: "abc", continuation },
      { limit: 9, bos: false, where: "" },
    ),
  );
  await scoreContinuations(model.createSession(9), vocabularySize, single);
  assert.deepEqual(lengths, [3]);
});

test("the transformer: rewinding against a fresh session for each choice", async () => {
  const model = await loadModel(POCKET_STORIES, { threads: 1 });
  try {
    const { vocabularySize } = model.config;
    const context = "Once upon a time there was a little";
    const encoded = [" girl named Lily.", " girl who liked to play", " dog. The dog", " x"].map(
      (continuation) =>
        encodeContinuation(model.tokenizer, { context, continuation }, { limit: 99, bos: false, where: "" }),
    );
    const session = model.createSession(64);
    const together = await scoreContinuations(session, vocabularySize, encoded);
    for (const [i, { ids, start }] of encoded.entries()) {
      session.truncate(0);
      const logits = await session.forward(ids, { logits: "all" });
      let sum = 0;
      for (let t = start; t < ids.length; t++) {
        const row = logits.subarray((t - 1) * vocabularySize, t * vocabularySize);
        sum += row[ids[t]] - Math.log(row.reduce((s, v) => s + Math.exp(v), 0));
      }
      near(together[i].logLikelihood, sum, 1e-4);
    }
    session.free();
  } finally {
    await model.close();
  }
});

test("--limit takes the first questions; a journal is gone on from", async () => {
  const questions = Array.from({ length: 6 }, (_, i) => ({
    context: `question ${i}`,
    choices: ["the", "then", `x${i}`],
    gold: i % 3,
  }));
  const tasks = [await task("one", ...questions), await task("two", ...questions.slice(2))];
  const { model, lengths } = prefixModel();
  const whole = await evaluateTasks({ model, tasks, limit: 5 });
  assert.deepEqual([whole["one"].n, whole["two"].n], [5, 4]);
  const entries = new Map<string, string>();
  const journal = {
    get: (key: string) => (entries.has(key) ? JSON.parse(entries.get(key)!) : undefined),
    put: async (key: string, value: object) => void entries.set(key, JSON.stringify(value)),
  };
  const abort = new AbortController();
  const stopped = evaluateTasks({
    ...{ model, tasks, limit: 5, journal, signal: abort.signal },
    onProgress: ({ stage, done }) => {
      if (stage === "two" && done === 1) abort.abort(new InputError("interrupted"));
    },
  });
  await assert.rejects(stopped, /interrupted/);
  const kept = entries.size;
  assert.ok(kept >= 6 && kept < 9, `${kept} pieces`);
  lengths.length = 0;
  assert.deepEqual(await evaluateTasks({ model, tasks, limit: 5, journal }), whole);
  assert.equal(entries.size, 9);
  const resumed = lengths.length;
  lengths.length = 0;
  await evaluateTasks({ model, tasks, limit: 5 });
  assert.ok(resumed < lengths.length / 2);
});

test("task files that cannot be used: one line with file and line", async () => {
  const good = '{"context": "a", "choices": ["b", "c"], "gold": 0}\n';
  const cases: [name: string, contents: string, message: RegExp][] = [
    ["empty.jsonl", "", /empty\.jsonl is empty/],
    ["plain.txt", "a b c", /plain\.txt is no task file/],
    ["json.jsonl", `${good}{"context"\n`, /json\.jsonl line 2 is not valid JSON/],
    [
      "form.jsonl",
      `${good}{"text": "a"}\n`,
      /form\.jsonl line 2: expected an object with "context", "choices"/,
    ],
    [
      "mixed.jsonl",
      `${good}\n{"context": "a", "target": "b"}\n`,
      /mixed\.jsonl line 3: has "context" and "target"/,
    ],
    ["gold.jsonl", good.replace("0}", "2}"), /line 1: "gold" is "2", expected a whole number from 0 to 1/],
    ["minus.jsonl", good.replace("0}", "-1}"), /line 1: "gold" is "-1"/],
    ["letter.jsonl", good.replace("0}", '"A"}'), /line 1: "gold" is/],
    ["none.jsonl", good.replace(', "gold": 0', ""), /line 1: "gold" is missing/],
    ["one.jsonl", good.replace('"b", ', ""), /line 1: "choices" is not a list of 2 to 256 strings/],
    ["blank.jsonl", good.replace('"b"', '""'), /line 1: "choices" has no text at position 0/],
    ["number.jsonl", good.replace('"a"', "3"), /line 1: "context" is not a string/],
    ["target.jsonl", '{"context": "a", "target": " "}\n', /line 1: "target" is empty/],
  ];
  for (const [name, contents, message] of cases)
    await assert.rejects(readTask(file(name, contents)), (error) => {
      assert.ok(error instanceof InputError, String(error));
      assert.match(error.message, message);
      return true;
    });
  const array = await readTask(file("array.json", `[${good}]`));
  assert.deepEqual([array.name, array.questions.length], ["array", 1]);
});

test("options and models that do not fit are refused before any work", async () => {
  const { model, lengths } = prefixModel(8);
  const long = { context: "a", choices: ["b", "x".repeat(20)], gold: 0 };
  const good = await task("good", { context: "a", choices: ["b", "c"], gold: 0 });
  await assert.rejects(evaluateTasks({ model, tasks: [good], limit: 0 }), UsageError);
  await assert.rejects(evaluateTasks({ model, tasks: [good, good] }), /same name/);
  const tasks = [good, await task("long", { ...long, choices: ["b", "c"] }, long)];
  await assert.rejects(
    evaluateTasks({ model, tasks }),
    /long\.jsonl line 2: .* leaves no context: at most 7/,
  );
  assert.deepEqual(lengths, []);
});
