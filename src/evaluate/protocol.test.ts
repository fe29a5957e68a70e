import assert from "node:assert/strict";
import { test } from "node:test";
import { countWords, readPages } from "./pages.js";
import { planProtocol } from "./protocol.js";

/** Tokens 1, 2, 3, …, as many as the text has characters. */
const tokenizer = {
  addsBos: false,
  bosTokenId: null,
  eosTokenId: 0,
  encodeLong: (text: string) => Int32Array.from({ length: text.length }, (_, i) => i + 1),
};

test("rolling windows: every token is predicted once, the last window is as long as the others", () => {
  const windows = (length: number) =>
    planProtocol("word", { tokenizer, documents: ["x".repeat(length)], context: 4 }).sequences.map(
      ({ ids, firstScored }) => [[...ids], firstScored],
    );
  assert.deepEqual(windows(3), [[[0, 1, 2, 3], 1]]);
  assert.deepEqual(windows(4), [[[0, 1, 2, 3, 4], 1]]);
  assert.deepEqual(windows(10), [
    [[0, 1, 2, 3, 4], 1],
    [[4, 5, 6, 7, 8], 1],
    [[6, 7, 8, 9, 10], 3],
  ]);
});

test("the description says what was done", () => {
  const describe = (protocol: "default" | "llamacpp" | "word") =>
    planProtocol(protocol, { tokenizer, documents: ["x".repeat(10)], context: 4 }).description;
  assert.match(describe("default"), /windows of 4 tokens .* all but the first token of each scored, no BOS/);
  assert.match(describe("llamacpp"), /the last 1 tokens of each scored/);
  assert.match(describe("word"), /EOS before it, .* rolling windows of at most 4/);
});

test("WikiText: articles apart, spaced punctuation undone, words counted before", () => {
  const text =
    '\n = First = \n\n One @-@ two , three ( four ) . \n\n = = Section = = \n\n Five \'s " six " \n = Second = \n 1 @,@ 000 \n';
  const pages = readPages(text);
  assert.deepEqual(
    pages.map(({ original }) => original.trim().split("\n")[0]),
    ["= First = ", "= Second = "],
  );
  assert.equal(pages[0].scored, ' = First =\n\nOne-two, three (four).\n\n== Section ==\n\nFive\'s "six" ');
  assert.equal(pages[1].scored, " = Second =\n1,000\n");
  // 3 + 9 + 5 + 5 between the empty pieces at both ends.
  assert.equal(countWords(pages[0].original), 24);
  assert.deepEqual(readPages("No title = here =\n = Title = \n"), [
    { original: "No title = here =\n = Title = \n", scored: "No title = here =\n = Title = \n" },
  ]);
  assert.deepEqual(readPages(" \n"), []);
});
