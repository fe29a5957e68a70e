import assert from "node:assert/strict";
import { test } from "node:test";
import type { TokenizerFiles } from "../checkpoint/checkpoint.js";
import { readDecodingRules } from "./detokenizer.js";
import {
  byteLevelFiles,
  SHARED_TOKENIZERS,
  sentencePieceFiles,
  sharedTokenizer,
} from "./fixtures.test.util.js";
import { createTokenizer, type Tokenizer } from "./tokenizer.js";

/** Park and Miller's generator: deterministic tests. */
function randomSource(seed: number): () => number {
  let state = seed;
  return () => (state = (state * 48271) % 2147483647) / 2147483647;
}

function stream(tokenizer: Tokenizer, ids: readonly number[], skipSpecialTokens: boolean): string[] {
  const detokenizer = tokenizer.createDetokenizer({ skipSpecialTokens });
  const parts = ids.map((id) => detokenizer.push(id));
  return [...parts, detokenizer.flush()];
}

const candidates: [string, TokenizerFiles | null][] = [
  ["small byte-level", byteLevelFiles()],
  ["small SentencePiece", sentencePieceFiles()],
  ...SHARED_TOKENIZERS.map((folder): [string, TokenizerFiles | null] => [folder, sharedTokenizer(folder)]),
];

for (const [name, files] of candidates) {
  const skip = files ? false : "../shared is missing";

  test(`${name}: pieces of random ids join to the whole decoded at once`, { skip }, () => {
    const tokenizer = createTokenizer(files!);
    const random = randomSource(7);
    // Half of the ids come from the single bytes of other scripts, so that broken characters abound.
    const bytes = tokenizer.encode("жß€漢😀 \u0301", { addSpecialTokens: false });
    for (let round = 0; round < 400; round++) {
      const ids = Array.from({ length: Math.floor(random() * 24) }, () =>
        random() < 0.5
          ? bytes[Math.floor(random() * bytes.length)]
          : Math.floor(random() * tokenizer.vocabularySize),
      );
      for (const skipSpecialTokens of [true, false]) {
        const parts = stream(tokenizer, ids, skipSpecialTokens);
        assert.equal(parts.join(""), tokenizer.decode(ids, { skipSpecialTokens }), `ids ${ids}`);
      }
    }
  });

  test(`${name}: no piece ever shows part of a character`, { skip }, () => {
    const tokenizer = createTokenizer(files!);
    const text = " the naïve ЖЖ 漢字 👩‍👧 end";
    const ids = tokenizer.encode(text, { addSpecialTokens: false });
    const parts = stream(tokenizer, ids, true);
    for (const part of parts) assert.ok(!part.includes("\uFFFD") && !/\p{Surrogate}/u.test(part), part);
    assert.equal(parts.join(""), tokenizer.decode(ids));
  });
}

test("an incomplete character at the end comes out of flush as U+FFFD", () => {
  const tokenizer = createTokenizer(byteLevelFiles());
  const detokenizer = tokenizer.createDetokenizer();
  assert.equal(detokenizer.push(0xe2), "");
  assert.equal(detokenizer.push(0x82), "");
  assert.equal(detokenizer.flush(), "\uFFFD");
  assert.equal(detokenizer.push(0x41), "A");
});

test("the leading space is dropped at the start of a text and kept in a continuation", () => {
  const tokenizer = createTokenizer(sentencePieceFiles());
  const the = tokenizer.tokenId("▁the")!;
  const read = (startOfText: boolean) => {
    const detokenizer = tokenizer.createDetokenizer({ startOfText });
    return detokenizer.push(the) + detokenizer.push(the) + detokenizer.flush();
  };
  assert.equal(read(true), "the the");
  assert.equal(read(false), " the the");
});

test("Metaspace decoders follow the same rule; decoders out of order are refused", () => {
  const files = sentencePieceFiles();
  const metaspace = createTokenizer({
    ...files,
    tokenizer: { ...files.tokenizer, decoder: { type: "Metaspace", replacement: "▁" } },
  });
  const ids = metaspace.encode("the aba the", { addSpecialTokens: false });
  assert.equal(stream(metaspace, ids, true).join(""), "the aba the");
  assert.equal(metaspace.decode(ids), "the aba the");
  const strip = { type: "Strip", content: " ", start: 1, stop: 0 };
  const fuse = { type: "Fuse" };
  assert.deepEqual(readDecodingRules({ type: "Sequence", decoders: [fuse, strip] }).strip.count, 1);
  assert.throws(() => readDecodingRules({ type: "Sequence", decoders: [strip, fuse] }), /not supported/);
  assert.throws(
    () => readDecodingRules({ type: "Sequence", decoders: [fuse, { ...strip, stop: 1 }] }),
    /not supported/,
  );
});
