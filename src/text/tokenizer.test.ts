import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { InputError } from "../errors.js";
import {
  byteLevelFiles,
  SHARED_TOKENIZERS,
  sentencePieceFiles,
  sharedFile,
  sharedTokenizer,
} from "./fixtures.test.util.js";
import { LibraryTokenizer } from "./library.js";
import { createTokenizer } from "./tokenizer.js";

test("byte-level: merges, digits one by one, special tokens in the text, and back", () => {
  const tokenizer = createTokenizer(byteLevelFiles());
  const ids = tokenizer.encode("hello the 12 €<|im_end|>");
  const spell = (list: number[]) => list.map((id) => tokenizer.token(id));
  assert.deepEqual(spell(ids), ["hello", "Ġthe", "Ġ", "1", "2", "Ġ", "â", "Ĥ", "¬", "<|im_end|>"]);
  assert.equal(tokenizer.decode(ids), "hello the 12 €");
  assert.equal(tokenizer.decode(ids, { skipSpecialTokens: false }), "hello the 12 €<|im_end|>");
  assert.equal(tokenizer.decode([]), "");
  assert.equal(tokenizer.decode([104, 999_999, 105]), "hi", "ids without a token are left out");
  assert.equal(tokenizer.bosTokenId, 256);
  assert.equal(tokenizer.eosTokenId, 257, "eos_token given as an object");
  assert.equal(tokenizer.tokenId("<|im_end|>"), 257);
  assert.equal(tokenizer.tokenId("nonsense"), null);
  assert.equal(tokenizer.vocabularySize, 256 + 2 + 9);
});

test("SentencePiece style: BOS, byte fallback, spaces", () => {
  const tokenizer = createTokenizer(sentencePieceFiles());
  const ids = tokenizer.encode("the  aba €");
  assert.equal(ids[0], 1);
  assert.deepEqual(
    ids.slice(1).map((id) => tokenizer.token(id)),
    ["▁the", "▁▁", "aba", "▁", "<0xE2>", "<0x82>", "<0xAC>"],
  );
  assert.equal(tokenizer.decode(ids), "the  aba €");
  assert.deepEqual(tokenizer.encode("the", { addSpecialTokens: false }).length, 1);
});

test("BOS: the post-processor decides unless add_bos_token is given", () => {
  const starts = (files: ReturnType<typeof byteLevelFiles>) => {
    const tokenizer = createTokenizer(files);
    const plain = tokenizer.encode("a", { addSpecialTokens: false });
    const expected = tokenizer.addsBos ? [tokenizer.bosTokenId, ...plain] : plain;
    assert.deepEqual(tokenizer.encode("a"), expected);
    return tokenizer.addsBos;
  };
  assert.equal(starts(byteLevelFiles()), false);
  assert.equal(starts(byteLevelFiles({ add_bos_token: true })), true);
  assert.equal(starts(byteLevelFiles({ add_bos_token: true, bos_token: null })), false);
  assert.equal(starts(sentencePieceFiles()), true);
  assert.equal(starts(sentencePieceFiles({ add_bos_token: false })), false);
});

test("the files that a tokenizer is made from stay as they are", () => {
  for (const files of [byteLevelFiles(), sentencePieceFiles()]) {
    const before = structuredClone(files);
    const ids = createTokenizer(files).encode("hello the 12 €");
    assert.deepEqual(files, before);
    assert.deepEqual(
      createTokenizer(files).encode("hello the 12 €"),
      ids,
      "a second one from the same files",
    );
  }
});

test("cutting long texts at merge boundaries does not change the ids", () => {
  // Random texts over few letters, so that merges, overlaps and unknown characters are everywhere.
  const letters = ["a", "b", "t", "h", "e", " ", "  ", ".", "é", "😀", "<s>"];
  let state = 1;
  const random = () => (state = (state * 48271) % 2147483647) / 2147483647;
  const files = sentencePieceFiles();
  const whole = new LibraryTokenizer(files.tokenizer, files.config);
  const tokenizer = createTokenizer(files);
  for (let round = 0; round < 50; round++) {
    const length = 300 + Math.floor(random() * 700);
    const text = Array.from({ length }, () => letters[Math.floor(random() * letters.length)]).join("");
    assert.deepEqual(tokenizer.encode(text), whole.encode(text, { add_special_tokens: true }).ids);
  }
});

for (const folder of SHARED_TOKENIZERS) {
  const files = sharedTokenizer(folder);
  const path = sharedFile("text/wikitext-2-raw/wikitext-test.hf-join.txt");
  const skip = files && path ? false : "../shared is missing";
  test(`${folder}: 100,000 characters give the library's ids uncut`, { skip }, () => {
    const text = readFileSync(path!, "utf8").slice(0, 100_000);
    const whole = new LibraryTokenizer(files!.tokenizer, files!.config);
    const tokenizer = createTokenizer(files!);
    const ids = tokenizer.encodeLong(text, { addSpecialTokens: false });
    assert.deepEqual([...ids], whole.encode(text, { add_special_tokens: false }).ids);
    assert.equal(tokenizer.addsBos, true);
  });
}

test("files that describe no tokenizer are refused with one clear line", () => {
  const good = byteLevelFiles();
  const broken: [string, Record<string, unknown>, RegExp][] = [
    ["no model", { model: undefined }, /no vocabulary/],
    ["huge id", { model: { type: "BPE", vocab: { a: 4e9 }, merges: [] } }, /impossible token id: 4000000000/],
    ["negative id", { model: { type: "BPE", vocab: { a: -1 }, merges: [] } }, /impossible token id/],
    ["added id", { added_tokens: [{ content: "x" }] }, /impossible token id/],
    ["added list", { added_tokens: 3 }, /not a list/],
    ["pre-tokenizer", { pre_tokenizer: { type: "Mystery" } }, /cannot be used: .*Mystery/],
    ["decoder", { decoder: { type: "CTC" } }, /decoder that is not supported: CTC/],
    ["no decoder", { decoder: null }, /decoder that is not supported/],
    [
      "post-processor",
      {
        post_processor: {
          type: "TemplateProcessing",
          single: [{ SpecialToken: { id: "<nowhere>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
        },
      },
      /outside the vocabulary/,
    ],
  ];
  for (const [name, change, message] of broken) {
    assert.throws(
      () => createTokenizer({ tokenizer: { ...good.tokenizer, ...change }, config: good.config }),
      (error) => error instanceof InputError && message.test(error.message) && !error.message.includes("\n"),
      name,
    );
  }
});
