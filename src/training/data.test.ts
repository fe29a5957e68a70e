import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { InputError, UsageError } from "../errors.js";
import { byteLevelFiles, sentencePieceFiles, sharedFile } from "../text/fixtures.test.util.js";
import { createTokenizer, type Tokenizer } from "../text/tokenizer.js";
import {
  nextTokenTargets,
  readTrainingSet,
  type TrainingDataOptions,
  type TrainingExample,
  type TrainingSet,
} from "./data.js";
import { instructionPrompt } from "./documents.js";

const CHATML =
  "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
const bytes = createTokenizer(byteLevelFiles());
const pieces = createTokenizer(sentencePieceFiles());
const chat = createTokenizer(byteLevelFiles({ chat_template: CHATML }));

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "pocketllm-tune-data-"));
});
after(() => rm(folder, { recursive: true, force: true }));

/** Writes a file and reads it as training data; nothing held out unless asked. */
async function load(
  name: string,
  content: string | Uint8Array,
  options: Partial<TrainingDataOptions> = {},
  tokenizer: Tokenizer = bytes,
): Promise<TrainingSet> {
  const path = join(folder, name);
  await writeFile(path, content);
  const { vocabularySize } = tokenizer;
  const defaults = { files: [path], packing: "examples", context: 4096, vocabularySize } as const;
  return await readTrainingSet(tokenizer, { ...defaults, seed: 0, heldOut: 0, ...options });
}

const decode = (ids: ArrayLike<number>, tokenizer = bytes) =>
  tokenizer.decode(ids, { skipSpecialTokens: false });
const learned = ({ ids, scored }: TrainingExample, tokenizer = bytes) =>
  decode(
    ids.filter((_, i) => scored[i] === 1),
    tokenizer,
  );

describe("what an entry becomes", () => {
  test("Alpaca: sections, and only the response and its end are learned", async () => {
    const entries = [
      { instruction: "Add.", input: "1 and 2", output: "hello 3" },
      { instruction: "Greet.", input: "", output: "the answer" },
    ];
    for (const [tokenizer, end] of [[bytes, "<|im_end|>"] as const, [pieces, "</s>"] as const]) {
      const { training, leftOut } = await load("a.json", JSON.stringify(entries), {}, tokenizer);
      assert.equal(leftOut, 0);
      const prompt = instructionPrompt("Add.", "1 and 2");
      assert.match(prompt, /### Instruction:\nAdd\.\n\n### Input:\n1 and 2\n\n### Response:\n$/);
      assert.equal(learned(training[0], tokenizer), `hello 3${end}`);
      assert.equal(learned(training[1], tokenizer), `the answer${end}`);
      assert.ok(!decode(training[1].ids, tokenizer).includes("### Input:"));
      assert.equal(
        tokenizer.decode(training[0].ids),
        `${prompt}hello 3`,
        "prompt and response tokenised as one text",
      );
      assert.equal(training[0].ids[0] === 1, tokenizer === pieces, "BOS where the tokenizer adds one");
    }
    const lines = entries.map((entry) => JSON.stringify(entry)).join("\r\n");
    const fromLines = await load("a.jsonl", lines);
    assert.deepEqual(fromLines.training, (await load("a.json", JSON.stringify(entries))).training);
  });

  test("the token over the edge of prompt and response is learned", async () => {
    // "\n" ends the prompt; a tokenizer that joins it with what follows leaves no token of its own.
    const joined: Tokenizer = {
      ...bytes,
      encode: (text, options) => {
        const ids = bytes.encode(text, options);
        const out: number[] = [];
        for (const id of ids)
          if (out.at(-1) === 10 && id === 65) out[out.length - 1] = 200;
          else out.push(id);
        return out;
      },
    };
    const entry = JSON.stringify([{ instruction: "x", output: "AB" }]);
    const { training } = await load("edge.json", entry, {}, joined);
    const [{ ids, scored }] = training;
    const marked = [...ids].filter((_, i) => scored[i]);
    assert.deepEqual(marked, [200, 66, bytes.eosTokenId]);
  });

  test("text: everything but the first token", async () => {
    const { training } = await load("t.jsonl", '{"text": "hello the"}\n\n{"text": "12"}\n');
    assert.equal(training.length, 2);
    assert.equal(decode(training[0].ids), "hello the<|im_end|>");
    assert.equal(learned(training[0]), " the<|im_end|>");
    assert.deepEqual([...nextTokenTargets(training[0])], [...training[0].ids.slice(1), -1]);
  });

  test("messages: only the assistant's turns, each with its end", async () => {
    const messages = [
      { role: "user", content: "Hi" },
      { role: "assistant", content: "Hello." },
      { role: "user", content: "More" },
      { role: "assistant", content: "No." },
    ];
    const { training } = await load("c.jsonl", JSON.stringify({ messages }), {}, chat);
    assert.equal(decode(training[0].ids), chat.applyChatTemplate(messages, { addGenerationPrompt: false }));
    assert.equal(learned(training[0]), "Hello.<|im_end|>\nNo.<|im_end|>\n");
    // A template that writes the number of messages first: shorter conversations are not its beginnings.
    const counting = createTokenizer(byteLevelFiles({ chat_template: `{{ messages | length }}${CHATML}` }));
    const all = await load("c.jsonl", JSON.stringify({ messages }), {}, counting);
    assert.equal(learned(all.training[0]), decode(all.training[0].ids.slice(1)));
  });

  test("plain text: a row for each paragraph, but whole in windows", async () => {
    const text = "hello\nthe\n\n \nworld\r\n\r\nlast\n";
    const { training } = await load("p.txt", text);
    assert.deepEqual(
      training.map(({ ids }) => bytes.decode(ids)),
      ["hello\nthe", "world", "last\n"],
    );
    const windows = await load("p.txt", text, { packing: "windows", context: 4 });
    assert.ok(`${text}<|im_end|>`.startsWith(windows.training.map(({ ids }) => decode(ids)).join("")));
  });
});

describe("packing", () => {
  test("examples are cut at the context; those without a token to learn are left out", async () => {
    const long = { instruction: "x".repeat(200), output: "never seen" };
    const entries = [{ text: "a".repeat(50) }, long, { text: " " }, { instruction: "x", output: "" }];
    const set = await load("cut.json", JSON.stringify(entries), { context: 32 });
    assert.equal(set.training.length, 1);
    assert.equal(set.training[0].ids.length, 32);
    assert.equal(set.leftOut, 3);
    await assert.rejects(load("cut.json", JSON.stringify([long]), { context: 32 }), /give a larger context/);
  });

  test("windows: documents joined with the tokens that end and begin texts, the rest dropped", async () => {
    const lines = '{"text": "abc"}\n{"text": "de"}\n{"text": "fgh"}\n';
    const flat = async (tokenizer: Tokenizer) => {
      const { training } = await load("w.jsonl", lines, { packing: "windows", context: 5 }, tokenizer);
      for (const { ids, scored } of training) {
        assert.equal(ids.length, 5);
        assert.equal(scored[0], 0);
      }
      return training.flatMap(({ ids }) => [...ids]);
    };
    const text = (ids: readonly number[]) =>
      decode(ids).replaceAll(/<\|im_(start|end)\|>/g, (_, w) => (w === "end" ? ")" : "("));
    assert.equal(text(await flat(bytes)), "abc)de)fgh");
    const both = createTokenizer(byteLevelFiles({ add_bos_token: true }));
    assert.equal(text(await flat(both)), "(abc)(de)(fgh)".slice(0, 10));
    const one = createTokenizer(byteLevelFiles({ add_bos_token: true, bos_token: "<|im_end|>" }));
    assert.equal(text(await flat(one)), ")abc)de)fgh)".slice(0, 10));
  });

  test("windows keep what each document learns", async () => {
    const entry = { instruction: "a", output: "yes" };
    const size = bytes.encode(instructionPrompt("a")).length + 4;
    const content = JSON.stringify([entry, entry]);
    const { training } = await load("m.json", content, { packing: "windows", context: size });
    assert.equal(training.length, 2);
    for (const example of training) assert.equal(learned(example), "yes<|im_end|>");
  });
});

test("mixed: answers are examples of their own, texts are joined", async () => {
  const entry = { instruction: "a", output: "yes" };
  const size = bytes.encode(instructionPrompt("a")).length + 4;
  const lines = [{ text: "b".repeat(size) }, entry, { text: "c".repeat(size) }];
  const content = lines.map((line) => JSON.stringify(line)).join("\n");
  const { training, heldOut } = await load("mixed.jsonl", content, { packing: "mixed", context: size });
  const all = [...training, ...heldOut];
  assert.equal(all.length, 3);
  assert.equal(all.filter((example) => learned(example) === "yes<|im_end|>").length, 1);
  const windows = all.filter(({ scored }) => scored.every((x, i) => x === 1 || i === 0));
  assert.equal(windows.length, 2);
  for (const { ids } of windows) assert.equal(ids.length, size);
});

describe("the division", () => {
  const lines = Array.from({ length: 100 }, (_, i) => JSON.stringify({ text: `line ${i % 90} of it` }));
  const read = (options: Partial<TrainingDataOptions>) => load("d.jsonl", lines.join("\n"), options);
  const texts = (examples: readonly TrainingExample[]) => examples.map(({ ids }) => bytes.decode(ids));

  test("by share and by number, the same for the same seed, nothing in both, copies neither", async () => {
    for (const [heldOut, count] of [[0.1, 10] as const, [7, 7] as const, [0.001, 1] as const]) {
      const set = await read({ heldOut, seed: 3 });
      assert.equal(set.heldOut.length, count);
      const held = new Set(texts(set.heldOut));
      const expected = lines.map((line) => (JSON.parse(line) as { text: string }).text);
      assert.deepEqual(
        texts(set.training),
        expected.filter((text) => !held.has(text)),
        "all others, in the order of the file",
      );
      assert.deepEqual(await read({ heldOut, seed: 3 }), set);
      if (count > 1) assert.notDeepEqual(texts((await read({ heldOut, seed: 4 })).heldOut), [...held]);
    }
    assert.equal((await read({ heldOut: 0 })).training.length, 100);
    assert.equal((await read({ heldOut: undefined })).heldOut.length, 5, "5% by default");
  });

  test("the fingerprint is of the tokens and of what is scored", async () => {
    const of = async (text: string) => (await load("f.json", text)).fingerprint;
    const one = await of('[{"text": "ab"}]');
    assert.equal(await of('[ {"text": "ab"} ]'), one);
    assert.notEqual(await of('[{"text": "aB"}]'), one);
    const prompt = instructionPrompt("x");
    const scoredWhole = await of(JSON.stringify([{ text: `${prompt}y` }]));
    assert.notEqual(await of('[{"instruction": "x", "output": "y"}]'), scoredWhole);
  });
});

describe("what is refused, in one line that says where", () => {
  const refused: [string, string | Uint8Array, RegExp, Partial<TrainingDataOptions>?, Tokenizer?][] = [
    ["empty.txt", "", /empty\.txt is empty: give/],
    ["blank.jsonl", " \n\n", /blank\.jsonl contains no text/],
    ["none.json", "[]", /none\.json has no entries/],
    [
      "blank.json",
      '[{"text": ""}, {"text": " "}]',
      /blank\.json: nothing is left to learn after tokenisation/,
    ],
    ["utf8.txt", Buffer.from("ok\n\xff\xfe\nok", "latin1"), /utf8\.txt line 2 is not UTF-8: save/],
    ["cut.txt", Buffer.from("ok\né").subarray(0, 4), /cut\.txt line 2 is not UTF-8/],
    ["json.jsonl", '{"text": "a"}\n{"text"\n', /json\.jsonl line 2 is not valid JSON/],
    ["lines.json", '{"text": "a"}\n{"text": "b"}\n', /lines\.json.* is not valid JSON: .*\.jsonl/],
    ["object.json", '{"text": "a"}', /expected a JSON array/],
    ["kind.jsonl", '{"text": "a"}\n\n{"body": "b"}', /kind\.jsonl line 3: expected an object with "text"/],
    ["number.json", "[1]", /number\.json entry 1: expected an object/],
    ["text.json", '[{"text": "a"}, {"text": 5}]', /text\.json entry 2: "text" is not a string/],
    ["output.json", '[{"instruction": "a"}]', /entry 1: "output" is missing/],
    ["instruction.json", '[{"output": "a"}]', /entry 1: "instruction" is missing/],
    ["input.json", '[{"instruction": "a", "input": null, "output": "b"}]', /"input" is not a string/],
    ["messages.json", '[{"messages": "hi"}]', /entry 1: "messages" is not a list/],
    ["role.json", '[{"messages": [{"role": "user"}]}]', /entry 1 message 1: "content" is missing/],
    ["user.json", '[{"messages": [{"role": "user", "content": "a"}]}]', /no message is the assistant's/],
    [
      "template.json",
      '[{"messages": [{"role": "assistant", "content": "a"}]}]',
      /entry 1: the model has no chat template/,
    ],
    [
      "ids.jsonl",
      '{"text": "a"}\n{"text": "the"}',
      /ids\.jsonl line 2: token id 259 .* vocabulary of 258/,
      { vocabularySize: 258 },
    ],
    [
      "short.txt",
      "abc",
      /short\.txt: 4 tokens do not fill one window of 16/,
      { packing: "windows", context: 16 },
    ],
    ["all.json", '[{"text": "ab"}]', /makes? 1 examples?.*hold out fewer/, { heldOut: 1 }],
    ["copies.json", '[{"text": "ab"}, {"text": "ab"}]', /leaves none to train on/, { heldOut: 1 }],
  ];
  for (const [name, content, message, options, tokenizer] of refused)
    test(name, async () => {
      await assert.rejects(load(name, content, options, tokenizer), (error: unknown) => {
        assert.ok(error instanceof InputError, String(error));
        assert.match(error.message, message);
        assert.ok(!error.message.includes("\n"));
        return true;
      });
    });

  test("a template that refuses the conversation; a file that is not there; a folder", async () => {
    const strict = createTokenizer(byteLevelFiles({ chat_template: "{{ raise_exception('no') }}" }));
    const content = '[{"messages": [{"role": "assistant", "content": "a"}]}]';
    await assert.rejects(load("strict.json", content, {}, strict), /strict\.json entry 1: .*refuses/);
    const missing = join(folder, "missing.txt");
    await assert.rejects(load("x", "x", { files: [missing] }), /cannot read .*missing\.txt/);
    await assert.rejects(load("x", "x", { files: [folder] }), /not a regular file/);
  });

  test("options out of range", async () => {
    const wrong: Partial<TrainingDataOptions>[] = [
      { files: [] },
      { context: 1 },
      { context: Number.NaN },
      { seed: -1 },
      { heldOut: -0.1 },
      { heldOut: 1.5 },
      { heldOut: Number.NaN },
    ];
    for (const options of wrong) await assert.rejects(load("o.txt", "abc", options), UsageError);
  });
});

const demo = sharedFile("text/alpaca/alpaca_en_demo.json");
test("a real Alpaca file", { skip: demo ? false : "alpaca_en_demo.json is not there" }, async () => {
  const model = new URL("../../models/pocket-stories/", import.meta.url);
  const json = async (name: string) =>
    JSON.parse(await readFile(new URL(name, model), "utf8")) as Record<string, unknown>;
  const tokenizer = createTokenizer({
    tokenizer: await json("tokenizer.json"),
    config: await json("tokenizer_config.json"),
  });
  const options = {
    files: [demo!],
    packing: "examples",
    context: 512,
    vocabularySize: 2048,
    seed: 1,
  } as const;
  const set = await readTrainingSet(tokenizer, { ...options, heldOut: 50 });
  const entries = JSON.parse(await readFile(demo!, "utf8")) as { output: string }[];
  assert.equal(set.training.length + set.heldOut.length + set.copies + set.leftOut, entries.length);
  assert.equal(set.heldOut.length, 50);
  const outputs = new Set(entries.map(({ output }) => output));
  for (const example of [...set.heldOut, ...set.training.slice(0, 50)]) {
    const response = learned(example, tokenizer).replace(/<\|endoftext\|>$/, "");
    const whole = example.ids.length < 512;
    assert.ok(whole ? outputs.has(response) : response.length > 0, JSON.stringify(response));
    assert.equal(example.ids[0], tokenizer.bosTokenId);
  }
});
