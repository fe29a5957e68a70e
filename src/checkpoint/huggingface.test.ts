import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { InputError } from "../errors.js";
import { checkFinite } from "./dense-checkpoint.js";
import { FileSource } from "./file-source.js";
import { openCheckpoint } from "./open.js";
import { SafetensorsFile } from "./safetensors.js";
import { writeSafetensors } from "./safetensors-write.js";
import { hostileModule, shared, skipUnless } from "./test-data.test.util.js";

const { makeTinyLlama } = await hostileModule<{
  makeTinyLlama(dir: string, options?: Record<string, unknown>): Promise<Record<string, unknown>>;
}>("tiny-llama.mjs");

describe("Hugging Face folders", () => {
  let folder: string;
  const at = (name: string) => join(folder, name);
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "pocketllm-huggingface-"));
  });
  after(() => rm(folder, { recursive: true }));

  test("one file and shards give the same model; hash, sizes, tokenizer", async () => {
    const config = await makeTinyLlama(at("one"), { dtype: "F16" });
    await makeTinyLlama(at("three"), { dtype: "F16", shards: 3 });
    const one = await openCheckpoint(at("one"));
    const three = await openCheckpoint(at("three"));
    assert.equal(one.format, "huggingface");
    assert.deepEqual(one.huggingFaceConfig, config);
    assert.deepEqual([...one.tensors], [...three.tensors]);
    assert.equal(one.tensors.get("lm_head.weight")?.storedAs, "F16");
    for (const name of one.tensors.keys())
      assert.deepEqual(await one.read(name), await three.read(name), name);
    const elements = 2 * 320 * 64 + 2 * (64 * 64 * 2 + 32 * 64 * 2 + 3 * 64 * 160 + 2 * 64) + 64;
    assert.equal(one.bytes16, 2 * elements);
    const bytes = await readFile(join(at("one"), "model.safetensors"));
    assert.equal(await one.hash(), createHash("sha256").update(bytes).digest("hex"));
    const all = createHash("sha256");
    for (const i of [1, 2, 3])
      all.update(await readFile(join(at("three"), `model-0000${i}-of-00003.safetensors`)));
    assert.equal(await three.hash(), all.digest("hex"));
    const files = await one.tokenizer();
    assert.ok(files);
    assert.equal(files.config["bos_token"], "<|endoftext|>");
    assert.equal((files.tokenizer["model"] as { type: string }).type, "BPE");
    await one.close();
    await three.close();
  });

  test("hash stops when aborted", async () => {
    await makeTinyLlama(at("abort"));
    const checkpoint = await openCheckpoint(at("abort"));
    const abort = new AbortController();
    abort.abort(new InputError("interrupted"));
    await assert.rejects(checkpoint.hash(abort.signal), /interrupted/);
    assert.equal((await checkpoint.hash()).length, 64);
    await checkpoint.close();
  });

  test("tied embeddings: stored as embedding, as head only, as both; rotary frequencies are ignored", async () => {
    await makeTinyLlama(at("tied"), { tied: true });
    const expected = await openCheckpoint(at("tied"));
    const embedding = await expected.read("model.embed_tokens.weight");
    assert.ok(!expected.tensors.has("lm_head.weight"));
    const source = await FileSource.open(join(at("tied"), "model.safetensors"));
    const file = await SafetensorsFile.open(source);
    const original = [...file.tensors.values()].map((tensor) => ({
      ...tensor,
      data: () => file.readBytes(tensor.name),
    }));
    const asHead = original.map((t) => (t.name.includes("embed") ? { ...t, name: "lm_head.weight" } : t));
    const both = [
      ...original,
      { name: "lm_head.weight", dtype: "F32" as const, shape: [1], data: () => new Uint8Array(4) },
      {
        name: "model.layers.0.self_attn.rotary_emb.inv_freq",
        dtype: "F32" as const,
        shape: [8],
        data: () => new Uint8Array(32),
      },
    ];
    for (const [name, tensors] of [
      ["head", asHead],
      ["both", both],
    ] as const) {
      await cp(at("tied"), at(name), { recursive: true });
      await writeSafetensors({ path: join(at(name), "model.safetensors"), tensors });
      const opened = await openCheckpoint(at(name));
      assert.deepEqual([...opened.tensors.keys()], [...expected.tensors.keys()]);
      assert.deepEqual(await opened.read("model.embed_tokens.weight"), embedding);
      assert.equal(opened.bytes16, expected.bytes16);
      await opened.close();
    }
    await source.close();
    await expected.close();
  });

  test("generation_config.json adds end tokens; chat_template.jinja and special_tokens_map.json are read", async () => {
    await makeTinyLlama(at("extras"));
    await writeFile(
      join(at("extras"), "generation_config.json"),
      '{"eos_token_id": [5, 256], "temperature": 0.6}',
    );
    await writeFile(join(at("extras"), "chat_template.jinja"), "{{ messages }}");
    await writeFile(join(at("extras"), "special_tokens_map.json"), '{"pad_token": "!", "bos_token": "?"}');
    const checkpoint = await openCheckpoint(at("extras"));
    assert.deepEqual(checkpoint.config.eosTokenIds, [256, 5]);
    assert.equal(checkpoint.generationConfig?.["temperature"], 0.6);
    const files = await checkpoint.tokenizer();
    assert.deepEqual(
      [files?.config["chat_template"], files?.config["pad_token"], files?.config["bos_token"]],
      ["{{ messages }}", "!", "<|endoftext|>"],
    );
    await rm(join(at("extras"), "tokenizer.json"));
    assert.equal(await checkpoint.tokenizer(), null);
    await checkpoint.close();
  });

  test("the generator streams: the same tensor for a seed whatever else the model has", async () => {
    await makeTinyLlama(at("a"), { seed: 3, layers: 1 });
    await makeTinyLlama(at("b"), { seed: 3, layers: 2, dtype: "BF16" });
    await makeTinyLlama(at("c"), { seed: 4, layers: 1 });
    const [a, b, c] = await Promise.all(["a", "b", "c"].map((name) => openCheckpoint(at(name))));
    const name = "model.layers.0.mlp.up_proj.weight";
    const [x, y, z] = await Promise.all([a, b, c].map((checkpoint) => checkpoint.read(name)));
    assert.ok(x.every((value, i) => Math.abs(value - y[i]) <= Math.abs(value) / 256));
    assert.notDeepEqual(x, z);
    const deviation = Math.sqrt(x.reduce((sum, value) => sum + value * value, 0) / x.length);
    assert.ok(Math.abs(deviation * 8 - 1) < 0.05, `standard deviation ${deviation}`);
    for (const checkpoint of [a, b, c]) await checkpoint.close();
  });
});

test("TinyStories-656K: only lm_head.weight is stored", {
  skip: skipUnless(shared("models/TinyStories-656K")),
}, async () => {
  const checkpoint = await openCheckpoint(shared("models/TinyStories-656K"));
  assert.equal(checkpoint.config.tiedEmbeddings, true);
  assert.equal(checkpoint.bytes16, 2 * 656000);
  assert.equal((await checkpoint.read("model.embed_tokens.weight")).length, 2048 * 128);
  assert.ok(!checkpoint.tensors.has("lm_head.weight"));
  await checkpoint.close();
});

test("what is not there: a path, a name of the hub without one", async () => {
  process.env["HF_HUB_OFFLINE"] = "1";
  await assert.rejects(openCheckpoint("HuggingFaceTB/SmolLM2-135M"), (error: Error) => {
    assert.ok(error instanceof InputError);
    assert.match(error.message, /no such file or folder here, and not in the cache/);
    return true;
  });
  for (const path of ["./absent/model", "/absent/model.gguf", "absent", "", "a\u0000b"])
    await assert.rejects(openCheckpoint(path), (error: Error) => {
      assert.ok(error instanceof InputError);
      assert.match(error.message, /no such file or folder/);
      return true;
    });
});

test("the first value that is not finite is named", () => {
  const tensor = { name: "x", shape: [2, 3], storedAs: "F32" };
  checkFinite(Float32Array.of(0, -0, 1e38, -1e38, 1e-45, 1), tensor, "f");
  checkFinite(new Float32Array(0), tensor, "f");
  assert.throws(
    () => checkFinite(Float32Array.of(0, 1, 2, 3, Number.NaN, 5), tensor, "f"),
    /"x" holds NaN at \[1, 1\]/,
  );
  assert.throws(
    () => checkFinite(Float32Array.of(0, Infinity, NaN), tensor, "f"),
    /holds Infinity at \[0, 1\]/,
  );
});
