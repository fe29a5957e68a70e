import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { FileSource } from "../checkpoint/file-source.js";
import { readGgufHeader } from "../checkpoint/gguf-header.js";
import { ggufTokenizer } from "../checkpoint/gguf-tokenizer.js";
import { shared, skipUnless } from "../checkpoint/test-data.test.util.js";
import { InputError } from "../errors.js";
import { Random } from "../random.js";
import { createTokenizer, type Tokenizer } from "../text/tokenizer.js";
import { GrammarEngine } from "./engine.js";
import type { AnswerFormat } from "./schema.js";

const read = (path: string) => JSON.parse(readFileSync(path, "utf8"));
const tokenizerOf = (folder: string) =>
  createTokenizer({
    tokenizer: read(join(folder, "tokenizer.json")),
    config: read(join(folder, "tokenizer_config.json")),
  });

const stories = tokenizerOf(fileURLToPath(new URL("../../models/pocket-stories", import.meta.url)));
const END = stories.eosTokenId!;
/** Ids from 2048 on are padding of the logits. */
const SIZE = stories.vocabularySize + 5;
const engine = new GrammarEngine({ tokenizer: stories, vocabularySize: SIZE, endIds: [END] });
after(() => engine.close());

const allows = (mask: Int32Array, id: number) => ((mask[id >> 5] >>> (id & 31)) & 1) === 1;

/** Text of tokens drawn at random from those allowed, the end of the answer as soon as it may come. */
async function drawn(
  from: { engine: GrammarEngine; tokenizer: Tokenizer; end: number },
  format: AnswerFormat,
  seed: number,
): Promise<string> {
  const random = new Random(seed);
  const constraint = await from.engine.constrain(format);
  const { vocabularySize } = from.tokenizer;
  const bytes: number[] = [];
  try {
    for (let step = 0; step < 400; step++) {
      const mask = await constraint.mask();
      if (allows(mask, from.end))
        return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(bytes));
      const ids = Array.from({ length: vocabularySize }, (_, id) => id).filter((id) => allows(mask, id));
      assert.ok(ids.length > 0, `nothing may follow ${Buffer.from(bytes)}`);
      // Quotes and brackets end things: prefer them, or texts and lists grow for ever.
      const ends = ids.filter((id) =>
        /^["}\]]/.test(new TextDecoder().decode(from.tokenizer.tokenBytes(id))),
      );
      const pool = ends.length > 0 && random.uniform() < 0.5 ? ends : ids;
      const id = pool[random.below(pool.length)];
      bytes.push(...from.tokenizer.tokenBytes(id));
      constraint.accept(id);
    }
    throw new Error(`no end: ${Buffer.from(bytes).subarray(0, 200)}`);
  } finally {
    constraint.free();
  }
}

const PERSON = {
  type: "object",
  properties: {
    name: { type: "string", maxLength: 12 },
    age: { type: "integer", minimum: 0, maximum: 120 },
    tags: { type: "array", items: { enum: ["tall", "kind"] }, maxItems: 2 },
    home: { anyOf: [{ type: "null" }, { $ref: "#/$defs/place" }] },
  },
  required: ["name", "age", "home"],
  $defs: { place: { type: "object", properties: { x: { type: "boolean" } }, required: ["x"] } },
};

function assertPerson(text: string): void {
  const { name, age, home, tags = [], ...rest } = JSON.parse(text);
  assert.ok(typeof name === "string" && [...name].length <= 12, text);
  assert.ok(Number.isInteger(age) && age >= 0 && age <= 120, text);
  assert.ok(home === null || typeof home.x === "boolean", text);
  assert.ok(tags.length <= 2 && tags.every((tag: string) => ["tall", "kind"].includes(tag)), text);
  assert.deepEqual(rest, {});
}

test("whatever is drawn fits the schema", async () => {
  const from = { engine, tokenizer: stories, end: END };
  const texts = new Set<string>();
  for (let seed = 0; seed < 12; seed++) {
    const text = await drawn(from, { type: "schema", schema: PERSON }, seed);
    assertPerson(text);
    texts.add(text);
  }
  assert.ok(texts.size > 8, "drawn, not one text");
  const json = await drawn(from, { type: "json" }, 1);
  assert.equal(Object.getPrototypeOf(JSON.parse(json)), Object.prototype);
});

const spm = shared("tokenizers/gguf-vocab/ggml-vocab-llama-spm.gguf");
test("SentencePiece's tokens, and bytes of half a character, are known by their bytes", {
  skip: skipUnless(spm),
}, async () => {
  const gguf = await FileSource.open(spm);
  const { metadata } = await readGgufHeader(gguf);
  await gguf.close();
  const tokenizer = createTokenizer(ggufTokenizer(metadata, spm)!);
  const end = tokenizer.eosTokenId!;
  const { vocabularySize } = tokenizer;
  const pieces = new GrammarEngine({ tokenizer, vocabularySize, endIds: [end] });
  const from = { engine: pieces, tokenizer, end };
  try {
    for (let seed = 0; seed < 4; seed++)
      assertPerson(await drawn(from, { type: "schema", schema: PERSON }, seed));
    for (let seed = 0; seed < 4; seed++)
      assert.equal(
        JSON.parse(await drawn(from, { type: "schema", schema: { const: "€é\u{1f999}" } }, seed)),
        "€é🦙",
      );
  } finally {
    await pieces.close();
  }
});

const withoutBraces = shared("models/TinyStories-656K");
test("a vocabulary that cannot write JSON is told so", { skip: skipUnless(withoutBraces) }, async () => {
  const tokenizer = tokenizerOf(withoutBraces);
  const { vocabularySize, eosTokenId } = tokenizer;
  const wordless = new GrammarEngine({ tokenizer, vocabularySize, endIds: [eosTokenId!] });
  await assert.rejects(
    wordless.constrain({ type: "json" }),
    /has no token that such an answer could begin with/,
  );
  await wordless.close();
});

test("special tokens and padding are never allowed; the end is, where the answer is whole", async () => {
  const constraint = await engine.constrain({ type: "schema", schema: { type: "boolean" } });
  const [yes] = stories.encode("true", { addSpecialTokens: false });
  const first = await constraint.mask();
  for (let id = 0; id < SIZE; id++)
    if (allows(first, id)) assert.match("true false", new RegExp(`(^| )${stories.token(id)}`));
  assert.ok(allows(first, yes) && !allows(first, END));
  // Without waiting for the masks between.
  for (const id of stories.encode("true", { addSpecialTokens: false })) constraint.accept(id);
  const last = await constraint.mask();
  assert.deepEqual(
    Array.from({ length: SIZE }, (_, id) => id).filter((id) => allows(last, id)),
    [END],
  );
  constraint.free();
});

const deep = (levels: number) => {
  let schema: object = { type: "null" };
  for (let i = 0; i < levels; i++) schema = { type: "array", items: schema };
  return schema;
};

test("schemas that cannot be enforced are refused by name, unless strict is false", async () => {
  for (const [schema, message] of [
    [{ type: "integer", multipleOf: 5 }, /^the JSON schema: "multipleOf" cannot be enforced/],
    [{ properties: { a: { not: {} } } }, /^the JSON schema, properties "a": "not" cannot be enforced/],
    [{ type: "number", minimum: 3 }, /"minimum" is enforced as minimum and maximum of an integer only/],
    [{ maxLength: 3 }, /"maxLength" is enforced with "type": "string" only/],
    [{ allOf: [{}, {}] }, /"allOf" is enforced with one schema only/],
    [{ type: "object", required: ["b"] }, /"required" names "b", which properties do not have/],
    ["text", /is not an object/],
    [[], /is not an object/],
    [deep(60), /nested deeper than 48 levels/],
    [{ enum: Array.from({ length: 20_000 }, (_, i) => i) }, /bytes: at most 65536 are taken/],
    [{ type: "string", maxLength: 1.5 }, /maxLength is 1\.5: give a whole number from 0 to 65535/],
    [
      { type: "string", pattern: "((a{500}){500}){500}" },
      /20 characters, 2 groups and 125000000 repetitions/,
    ],
    [{ type: "string", pattern: `${"(".repeat(40)}a${")".repeat(40)}` }, /81 characters, 40 groups/],
    [{ patternProperties: { ["a?".repeat(251)]: {} } }, /a pattern has 502 characters/],
    [{ type: "foo" }, /cannot be used: Unsupported type "foo"/],
    [{ $ref: "#/nope" }, /cannot be used: Cannot find field nope/],
    [{ type: "string", pattern: "(" }, /cannot be used: Regex parsing error at position 2/],
  ] as const)
    await assert.rejects(engine.constrain({ type: "schema", schema }), (error: Error) => {
      assert.ok(error instanceof InputError, error.stack);
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\n|\.cc/);
      return true;
    });
  const loose = await engine.constrain({
    type: "schema",
    schema: { type: "integer", multipleOf: 5 },
    strict: false,
  });
  loose.free();
  // After all of them it still works.
  assertPerson(await drawn({ engine, tokenizer: stories, end: END }, { type: "schema", schema: PERSON }, 99));
});

test("a schema that takes too long ends the thread, and the answers in it; the next one has another", async () => {
  const options = { tokenizer: stories, vocabularySize: SIZE, endIds: [END] };
  const slow = new GrammarEngine({ ...options, seconds: 0.001 });
  await assert.rejects(
    slow.constrain({ type: "json" }),
    /is not compiled after 0\.001 seconds: make it smaller/,
  );
  await slow.close();
  const other = new GrammarEngine(options);
  const kept = await other.constrain({ type: "json" });
  // A token that may not follow.
  kept.accept(END + 1);
  await assert.rejects(kept.mask(), /token 1 is not one of those that may follow/);
  await assert.rejects(async () => {
    kept.accept(5);
    await kept.mask();
  }, /the schema of this answer was lost: ask again/);
  const again = await other.constrain({ type: "json" });
  assert.ok((await again.mask()).some((word) => word !== 0));
  await other.close();
  again.accept(1);
  await assert.rejects(again.mask(), /was lost/);
  again.free();
});
