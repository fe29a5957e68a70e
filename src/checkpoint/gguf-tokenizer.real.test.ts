/** The whole of WikiText-2's test split through SmolLM2's tokenizer: the token count that evaluations rely on. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { Tokenizer } from "@huggingface/tokenizers";
import { openCheckpoint } from "./open.js";
import { shared, skipUnless, smolLM2 } from "./test-data.test.util.js";

const text = shared("text/wikitext-2-raw/wikitext-test.hf-join.txt");

test("wikitext-test.hf-join.txt has 304,978 tokens", { skip: skipUnless(smolLM2, text) }, async () => {
  const checkpoint = await openCheckpoint(smolLM2);
  const files = await checkpoint.tokenizer();
  await checkpoint.close();
  const tokenizer = new Tokenizer(files!.tokenizer as never, files!.config as never);
  // White space before a letter always begins a piece, so that paragraphs can be encoded one by one.
  const paragraphs = (await readFile(text, "utf8")).split(/(?<=\n\n)(?=\S)/);
  let tokens = 0;
  for (const paragraph of paragraphs) tokens += tokenizer.encode(paragraph).ids.length;
  assert.equal(tokens, 304978);
});
