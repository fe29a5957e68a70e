/** Tokenizers rebuilt from metadata, run by @huggingface/tokenizers, against known token ids. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { describe, test } from "node:test";
import { Tokenizer } from "@huggingface/tokenizers";
import type { TokenizerFiles } from "./checkpoint.js";
import { FileSource } from "./file-source.js";
import { type GgufValue, readGgufHeader } from "./gguf-header.js";
import { ggufTokenizer } from "./gguf-tokenizer.js";
import { openCheckpoint } from "./open.js";
import { shared, skipUnless, smolLM2 } from "./test-data.test.util.js";

/** The library's own types ask for more than it needs. */
function build(files: TokenizerFiles | null): Tokenizer {
  assert.ok(files);
  const { tokenizer, config } = files;
  return new Tokenizer(tokenizer as never, config as never);
}

async function fromGguf(path: string): Promise<Tokenizer> {
  const source = await FileSource.open(path);
  const { metadata } = await readGgufHeader(source);
  await source.close();
  return build(ggufTokenizer(metadata, path));
}

for (const name of ["gpt-2", "llama-spm", "phi-3"]) {
  const path = shared(`tokenizers/gguf-vocab/ggml-vocab-${name}.gguf`);
  test(`${name}: the 47 texts of llama.cpp's tokenizer test`, { skip: skipUnless(path) }, async () => {
    const tokenizer = await fromGguf(path);
    const texts = (await readFile(`${path}.inp`, "utf8")).split("\n__ggml_vocab_test__\n");
    const ids = (await readFile(`${path}.out`, "utf8")).split("\n");
    assert.equal(texts.length, 47);
    for (const [i, text] of texts.entries())
      assert.equal(tokenizer.encode(text, { add_special_tokens: false }).ids.join(" "), ids[i].trim(), text);
  });
}

test("SmolLM2: the reference's prompts, special tokens and chat template", {
  skip: skipUnless(smolLM2, shared("reference/smollm2-135m.json")),
}, async () => {
  const checkpoint = await openCheckpoint(smolLM2);
  const files = await checkpoint.tokenizer();
  await checkpoint.close();
  const tokenizer = build(files);
  const reference = JSON.parse(await readFile(shared("reference/smollm2-135m.json"), "utf8")) as {
    prompts: { text: string; ids: number[] }[];
  };
  assert.equal(reference.prompts.length, 3);
  for (const { text, ids } of reference.prompts) {
    assert.deepEqual(tokenizer.encode(text).ids, ids);
    assert.equal(tokenizer.decode(ids, { skip_special_tokens: false }), text);
  }
  const { bos_token, eos_token, unk_token, add_bos_token, chat_template } = files!.config;
  assert.deepEqual(
    [bos_token, eos_token, unk_token, add_bos_token],
    ["<|im_start|>", "<|im_end|>", "<|endoftext|>", false],
  );
  assert.match(chat_template as string, /<\|im_start\|>system\nYou are a helpful AI assistant named SmolLM/);
});

const tiny = shared("models/TinyStories-656K");
test("TinyStories: scores that are all equal give the merges in the order of ids", {
  skip: skipUnless(tiny),
}, async () => {
  const [json, scores] = await Promise.all(
    [tiny, `${tiny}/TinyStories-656K-Q8_0.gguf`].map(async (path) => {
      const checkpoint = await openCheckpoint(path);
      const tokenizer = build(await checkpoint.tokenizer());
      await checkpoint.close();
      return tokenizer;
    }),
  );
  const text = await readFile(shared("text/tinystories/tinystories_val.txt"), "utf8");
  for (const story of text.slice(0, 60000).split("\n\n"))
    assert.deepEqual(scores.encode(story).ids, json.encode(story).ids);
});

/** A byte-level vocabulary of the 256 bytes and some words, without merges, and the given pre-tokenizer. */
function byteLevelMetadata(pre: string | undefined, words: string[]): Map<string, GgufValue> {
  const bytes: string[] = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
    bytes.push(String.fromCodePoint(printable ? byte : next++));
  }
  const metadata = new Map<string, GgufValue>([
    ["tokenizer.ggml.model", "gpt2"],
    ["tokenizer.ggml.tokens", [...bytes, ...words]],
    ["tokenizer.ggml.merges", []],
    ["tokenizer.ggml.bos_token_id", 256],
    ["tokenizer.ggml.eos_token_id", 256],
  ]);
  if (pre !== undefined) metadata.set("tokenizer.ggml.pre", pre);
  return metadata;
}

/** The pieces into which a pre-tokenizer splits a text. */
function pieces(pre: string, text: string): string[] {
  const { tokenizer } = ggufTokenizer(byteLevelMetadata(pre, ["<s>"]), "x")!;
  let parts = [text];
  const { pretokenizers } = tokenizer["pre_tokenizer"] as { pretokenizers: Record<string, unknown>[] };
  for (const { type, pattern } of pretokenizers) {
    if (type !== "Split") continue;
    const regex = new RegExp(`(${(pattern as { Regex: string }).Regex})`, "u");
    parts = parts.flatMap((part) => part.split(regex).filter((piece) => piece));
  }
  return parts;
}

describe("pre-tokenizers", () => {
  const text = "I'LL pay 12345 €\n\n  ok";
  const expected: Record<string, string[]> = {
    "gpt-2": ["I", "'", "LL", " pay", " 12345", " €", "\n\n ", " ok"],
    smollm: ["I", "'", "LL", " pay", " ", "1", "2", "3", "4", "5", " €", "\n\n ", " ok"],
    "llama-bpe": ["I", "'LL", " pay", " ", "123", "45", " €\n\n", " ", " ok"],
    qwen2: ["I", "'LL", " pay", " ", "1", "2", "3", "4", "5", " €\n\n", " ", " ok"],
    tekken: ["I", "'LL", " pay", " ", "1", "2", "3", "4", "5", " €\n\n", " ", " ok"],
  };
  for (const [pre, split] of Object.entries(expected))
    test(pre, () => assert.deepEqual(pieces(pre, text), split));

  test("tekken parts words where a capital follows small letters", () => {
    assert.deepEqual(pieces("tekken", "camelCase HTTPServer"), ["camel", "Case", " HTTPServer"]);
  });

  test("unknown or absent: refused by name", () => {
    assert.throws(() => ggufTokenizer(byteLevelMetadata("gpt-5", []), "x"), /x: the pre-tokenizer "gpt-5"/);
    assert.throws(() => ggufTokenizer(byteLevelMetadata(undefined, []), "x"), /names no pre-tokenizer/);
    assert.throws(
      () => ggufTokenizer(new Map([["tokenizer.ggml.model", "t5"]]), "x"),
      /tokenizer "t5" is not/,
    );
    assert.equal(ggufTokenizer(new Map(), "x"), null);
  });
});

describe("vocabularies", () => {
  test("BOS is added when the file or the kind says so; NFC and whole-word tokens of Llama 3 and Qwen", () => {
    const llama3 = build(ggufTokenizer(byteLevelMetadata("llama-bpe", ["<s>", "Ġword"]), "x"));
    // A word that is a token needs no merges there.
    assert.deepEqual(llama3.encode(" word").ids, [256, 257]);
    const metadata = byteLevelMetadata("llama-bpe", ["<s>"]).set("tokenizer.ggml.add_bos_token", false);
    assert.deepEqual(build(ggufTokenizer(metadata, "x")).encode("a").ids, [97]);
    const qwen = build(ggufTokenizer(byteLevelMetadata("qwen2", ["<s>"]), "x"));
    assert.deepEqual(qwen.encode("e\u0301").ids, [0xc3, 0xa9]);
    assert.equal(qwen.decode(qwen.encode("naïve 🦙").ids), "naïve 🦙");
  });

  test("control and user-defined tokens are found in a text, others are not", () => {
    const metadata = byteLevelMetadata("gpt-2", ["<s>", "<user>", "<plain>"]);
    metadata.set("tokenizer.ggml.token_type", [...Array(256).fill(1), 3, 4, 1]);
    const files = ggufTokenizer(metadata, "x")!;
    assert.deepEqual(build(files).encode("<s><user>").ids, [256, 257]);
    assert.equal(build(files).encode("<plain>").ids.length, 7);
    const added = files.tokenizer["added_tokens"] as { id: number; special: boolean }[];
    assert.deepEqual(
      added.map(({ id, special }) => [id, special]),
      [
        [256, true],
        [257, false],
      ],
    );
  });

  test("a token called __proto__ is a token", () => {
    const metadata = byteLevelMetadata("llama-bpe", ["<s>", "__proto__"]);
    const files = ggufTokenizer(metadata, "x")!;
    assert.ok(Object.hasOwn((files.tokenizer["model"] as { vocab: object }).vocab, "__proto__"));
  });

  test("impossible ones are refused", () => {
    const base = () => byteLevelMetadata("gpt-2", ["<s>"]);
    const refused: [string, GgufValue | undefined, RegExp][] = [
      ["tokenizer.ggml.tokens", undefined, /tokens is missing/],
      ["tokenizer.ggml.tokens", ["a", "b", "a"], /tokens 0 and 2 are both "a"/],
      ["tokenizer.ggml.tokens", ["x".repeat(5000)], /token 0 has 5000 characters/],
      ["tokenizer.ggml.tokens", [1, 2], /not an array of strings/],
      ["tokenizer.ggml.token_type", [1], /1 token types for 257 tokens/],
      ["tokenizer.ggml.bos_token_id", 999, /special token 999 is not in the vocabulary/],
      ["tokenizer.ggml.bos_token_id", "0", /is "0", expected a number/],
      ["tokenizer.ggml.merges", ["ab"], /merge 0 \("ab"\)/],
    ];
    for (const [key, value, message] of refused) {
      const metadata = base();
      if (value === undefined) metadata.delete(key);
      else metadata.set(key, value);
      assert.throws(() => ggufTokenizer(metadata, "x"), message);
    }
    const spm = base().set("tokenizer.ggml.model", "llama");
    assert.throws(() => ggufTokenizer(spm, "x"), /0 scores for 257 tokens/);
  });
});
