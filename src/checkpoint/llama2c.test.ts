import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { Tokenizer } from "@huggingface/tokenizers";
import { bytesSource } from "./byte-source.js";
import type { TokenizerFiles } from "./checkpoint.js";
import { FileSource } from "./file-source.js";
import { readGgufHeader } from "./gguf-header.js";
import { ggufTokenizer } from "./gguf-tokenizer.js";
import { openLlama2c, readLlama2cTokenizer } from "./llama2c.js";
import { openCheckpoint } from "./open.js";
import { shared, skipUnless } from "./test-data.test.util.js";

const build = ({ tokenizer, config }: TokenizerFiles) => new Tokenizer(tokenizer as never, config as never);

/** dim 8, hidden 12, 2 layers, 2 heads of 4, 1 K/V head, 5 tokens, context 3; weight i of the file is i. */
function model(ownHead: boolean): Uint8Array {
  const [dim, hidden, layers, heads, kvHeads, vocabulary, context] = [8, 12, 2, 2, 1, 5, 3];
  const floats =
    vocabulary * dim +
    layers * (dim + dim * dim + 2 * 4 * dim + dim * dim + dim + 3 * dim * hidden) +
    dim +
    context * 4 +
    (ownHead ? vocabulary * dim : 0);
  const header = [dim, hidden, layers, heads, kvHeads, ownHead ? -vocabulary : vocabulary, context];
  return Uint8Array.from([
    ...new Uint8Array(Int32Array.from(header).buffer),
    ...new Uint8Array(Float32Array.from(Array(floats).keys()).buffer),
  ]);
}

test("places of the tensors, rotate-half row order, own and shared head", async () => {
  for (const ownHead of [false, true]) {
    const bytes = model(ownHead);
    const opened = await openLlama2c({
      source: bytesSource(bytes, "x.bin"),
      openTokenizer: async () => null,
      hash: async () => "",
      close: async () => {},
    });
    assert.equal(opened.config.tiedEmbeddings, !ownHead);
    assert.equal(await opened.tokenizer(), null);
    const first = async (name: string) => (await opened.read(name))[0];
    // Embedding 40, norms 2 x 8, q 2 x 64, k and v 2 x 32 each, o 2 x 64, norms, then gate, down, up 2 x 96 each.
    assert.equal(await first("model.layers.0.input_layernorm.weight"), 40);
    assert.equal(await first("model.layers.1.self_attn.q_proj.weight"), 40 + 16 + 64);
    assert.equal(await first("model.layers.1.self_attn.v_proj.weight"), 40 + 16 + 128 + 64 + 32);
    const gate = 40 + 16 + 128 + 128 + 128 + 16;
    assert.equal(await first("model.layers.0.mlp.gate_proj.weight"), gate);
    assert.equal(await first("model.layers.0.mlp.down_proj.weight"), gate + 192);
    assert.equal(await first("model.layers.1.mlp.up_proj.weight"), gate + 2 * 192 + 96);
    assert.equal(await first("model.norm.weight"), gate + 3 * 192);
    // The rotary tables (3 positions x 2 x 2) lie before the head.
    if (ownHead) assert.equal(await first("lm_head.weight"), gate + 3 * 192 + 8 + 12);
    const q = await opened.read("model.layers.0.self_attn.q_proj.weight");
    const rows = Array.from({ length: 8 }, (_, row) => (q[8 * row] - 56) / 8);
    assert.deepEqual(rows, [0, 2, 1, 3, 4, 6, 5, 7]);
  }
});

/** The encoder of llama2.c's run.c: characters or bytes, then the best-scored neighbours merge, the first of equals. */
function runC(tokens: Map<string, number>, scores: number[], text: string): number[] {
  const ids = [...` ${text}`].flatMap(
    (c) => tokens.get(c) ?? [...new TextEncoder().encode(c)].map((byte) => byte + 3),
  );
  const names = [...tokens.keys()];
  for (;;) {
    let best = Number.NEGATIVE_INFINITY;
    let at = -1;
    let merged = -1;
    for (let i = 0; i + 1 < ids.length; i++) {
      const id = tokens.get(names[ids[i]] + names[ids[i + 1]]);
      if (id !== undefined && scores[id] > best) [best, at, merged] = [scores[id], i, id];
    }
    if (at < 0) return ids;
    ids.splice(at, 2, merged);
  }
}

const stories = shared("models/stories260K/stories260K.bin");
test("stories260K: opens, and its tokenizer encodes as run.c does", {
  skip: skipUnless(stories),
}, async () => {
  const checkpoint = await openCheckpoint(stories);
  assert.equal(checkpoint.format, "llama2.c");
  assert.equal(checkpoint.bytes16, 2 * 260032);
  assert.equal(await checkpoint.hash(), "b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696");
  const tokenizer = build((await checkpoint.tokenizer())!);
  await checkpoint.close();
  const bytes = await readFile(shared("models/stories260K/tok512.bin"));
  const tokens = new Map<string, number>();
  const scores: number[] = [];
  for (let at = 4, id = 0; at < bytes.length; id++) {
    const length = bytes.readInt32LE(at + 4);
    tokens.set(bytes.toString("utf8", at + 8, at + 8 + length), id);
    scores.push(bytes.readFloatLE(at));
    at += 8 + length;
  }
  const text = await readFile(shared("text/tinystories/tinystories_val.txt"), "utf8");
  const samples = [...text.slice(0, 20000).split("\n\n"), "Café 🦙  two  spaces", "x"];
  for (const sample of samples)
    assert.deepEqual(tokenizer.encode(sample).ids, [1, ...runC(tokens, scores, sample)]);
});

const llama2 = shared("tokenizers/llama2/tokenizer.bin");
const spm = shared("tokenizers/gguf-vocab/ggml-vocab-llama-spm.gguf");
test("Llama 2's tokenizer.bin gives the vocabulary and merges of its GGUF", {
  skip: skipUnless(llama2, spm),
}, async () => {
  const source = await FileSource.open(llama2);
  const fromBin = await readLlama2cTokenizer(source, 32000);
  await source.close();
  const gguf = await FileSource.open(spm);
  const { metadata } = await readGgufHeader(gguf);
  await gguf.close();
  const fromGguf = ggufTokenizer(metadata, spm)!;
  assert.deepEqual(fromBin.tokenizer["model"], fromGguf.tokenizer["model"]);
  assert.deepEqual(fromBin.tokenizer["post_processor"], fromGguf.tokenizer["post_processor"]);
});

test("a tokenizer of another vocabulary, cut short or damaged is refused", {
  skip: skipUnless(llama2),
}, async () => {
  const bytes = new Uint8Array(await readFile(llama2));
  const read = (edited: Uint8Array, size = 32000) =>
    readLlama2cTokenizer(bytesSource(edited, "tokenizer.bin"), size);
  await assert.rejects(read(bytes, 512), /is not the tokenizer of 512 tokens/);
  await assert.rejects(read(bytes, 31999), /1\d bytes follow the last token/);
  await assert.rejects(read(bytes.subarray(0, -3)), /token 31999 claims/);
  const negative = bytes.slice();
  new DataView(negative.buffer).setInt32(8, -1, true);
  await assert.rejects(read(negative), /token 0 claims -1 bytes/);
});
