import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { gguf } from "@huggingface/gguf";
import { bytesSource } from "./byte-source.js";
import type { Checkpoint } from "./checkpoint.js";
import { FileSource } from "./file-source.js";
import { openGguf } from "./gguf.js";
import { readGgufHeader } from "./gguf-header.js";
import { openCheckpoint } from "./open.js";
import { interleavedToHalves } from "./rotary-layout.js";
import { hostileModule, shared, skipUnless, smolLM2 } from "./test-data.test.util.js";

interface TensorParts {
  name: string;
  dims: number[];
  type: number;
  data: Uint8Array;
}
interface Builder {
  buildGguf(parts: {
    metadata: unknown[];
    tensors: TensorParts[];
    version?: number;
    alignment?: number;
  }): Uint8Array;
  tinyMetadata(architecture?: string): [string, unknown][];
  tinyTensors(): TensorParts[];
  TENSOR: Record<string, number>;
}
const { buildGguf, tinyMetadata, tinyTensors, TENSOR } = await hostileModule<Builder>("gguf.mjs");

async function open(bytes: Uint8Array): Promise<Checkpoint> {
  return await openGguf({
    source: bytesSource(bytes, "model.gguf"),
    hash: async () => "",
    close: async () => {},
  });
}

function f32Tensor(name: string, values: ArrayLike<number>, ...shape: number[]): TensorParts {
  const data = new Uint8Array(Float32Array.from(values).buffer);
  return { name, dims: shape.reverse(), type: TENSOR["F32"], data };
}

const valuesOf = (tensors: TensorParts[], name: string) =>
  new Float32Array(Uint8Array.from(tensors.find((t) => t.name === name)!.data).buffer);

describe("GGUF models", () => {
  test("llama: names, shapes, values; q and k rows from neighbours to halves", async () => {
    const tensors = tinyTensors();
    for (const version of [2, 3])
      for (const alignment of [32, 64]) {
        const metadata = alignment === 32 ? tinyMetadata() : [...tinyMetadata(), ["general.alignment", 64]];
        const opened = await open(buildGguf({ metadata, tensors, version, alignment }));
        assert.equal(opened.format, "gguf");
        assert.equal(opened.config.tiedEmbeddings, true);
        assert.equal(opened.config.rmsNormEpsilon, 1e-5);
        assert.equal(opened.huggingFaceConfig["model_type"], "llama");
        assert.deepEqual(opened.tensors.get("model.layers.0.mlp.down_proj.weight")?.shape, [32, 64]);
        for (const [name, original] of [
          ["model.embed_tokens.weight", "token_embd.weight"],
          ["model.layers.0.self_attn.v_proj.weight", "blk.0.attn_v.weight"],
          ["model.layers.0.mlp.up_proj.weight", "blk.0.ffn_up.weight"],
          ["model.norm.weight", "output_norm.weight"],
        ])
          assert.deepEqual(await opened.read(name), valuesOf(tensors, original), name);
        for (const [part, original] of [
          ["q", "blk.0.attn_q.weight"],
          ["k", "blk.0.attn_k.weight"],
        ]) {
          const stored = valuesOf(tensors, original);
          const read = await opened.read(`model.layers.0.self_attn.${part}_proj.weight`);
          // Heads of 8 rows of 32: row 2i + s of the file is row 4s + i of the model.
          for (let row = 0; row < stored.length / 32; row++) {
            const [head, r] = [row - (row % 8), row % 8];
            const to = head + 4 * (r % 2) + (r >> 1);
            assert.deepEqual(read.subarray(32 * to, 32 * to + 32), stored.subarray(32 * row, 32 * row + 32));
          }
        }
      }
  });

  test("qwen2 (biases) and qwen3 (head norms) keep their row order", async () => {
    const bias = (name: string, n: number) => f32Tensor(`blk.0.${name}.bias`, [...Array(n).keys()], n);
    const qwen2 = [...tinyTensors(), bias("attn_q", 32), bias("attn_k", 16), bias("attn_v", 16)];
    const opened = await open(buildGguf({ metadata: tinyMetadata("qwen2"), tensors: qwen2 }));
    assert.equal(opened.config.qkvBias, true);
    assert.deepEqual(
      await opened.read("model.layers.0.self_attn.q_proj.weight"),
      valuesOf(qwen2, "blk.0.attn_q.weight"),
    );
    assert.deepEqual(
      await opened.read("model.layers.0.self_attn.k_proj.bias"),
      Float32Array.from(Array(16).keys()),
    );
    const ones = Array(8).fill(1);
    const qwen3 = [
      ...tinyTensors(),
      f32Tensor("blk.0.attn_q_norm.weight", ones, 8),
      f32Tensor("blk.0.attn_k_norm.weight", ones, 8),
    ];
    const other = await open(buildGguf({ metadata: tinyMetadata("qwen3"), tensors: qwen3 }));
    assert.equal(other.config.qkNorm, true);
    assert.equal(other.tensors.get("model.layers.0.self_attn.q_norm.weight")?.storedAs, "F32");
  });

  test("an output matrix of its own, a window, end of turn, linear rope scaling", async () => {
    const tensors = [...tinyTensors(), f32Tensor("output.weight", Array(40 * 32).fill(0.5), 40, 32)];
    const metadata = [
      ...tinyMetadata(),
      ["llama.attention.sliding_window", 16],
      ["llama.rope.scaling.type", "linear"],
      ["llama.rope.scaling.factor", 2.5],
      ["tokenizer.ggml.bos_token_id", 1],
      ["tokenizer.ggml.eos_token_id", 2],
      ["tokenizer.ggml.eot_token_id", 7],
    ];
    const { config, tensors: found } = await open(buildGguf({ metadata, tensors }));
    assert.deepEqual(
      [
        config.architecture,
        config.slidingWindow,
        config.tiedEmbeddings,
        config.ropeScaling,
        config.eosTokenIds,
      ],
      ["mistral", 16, false, { type: "linear", factor: 2.5 }, [2, 7]],
    );
    assert.ok(found.has("lm_head.weight"));
  });

  test("Llama 3's rotary factors give its rope scaling back", async () => {
    const [theta, size] = [500000, 128];
    const metadata = tinyMetadata().map(([key, value]) =>
      key === "llama.rope.freq_base"
        ? [key, { type: 6, value: theta }]
        : key === "llama.rope.dimension_count"
          ? [key, size]
          : [key, value],
    );
    metadata.push(["llama.attention.key_length", size], ["llama.attention.value_length", size]);
    const weights = (name: string, ...shape: number[]) =>
      f32Tensor(name, new Float32Array(shape[0] * shape[1]), ...shape);
    const replaced = tinyTensors().filter(({ name }) => !name.includes("attn_") || name.includes("norm"));
    for (const factor of [8, 32]) {
      const factors = Array.from({ length: size / 2 }, (_, i) => {
        const wavelength = 2 * Math.PI * theta ** ((2 * i) / size);
        if (wavelength < 8192 / 4) return 1;
        if (wavelength > 8192) return factor;
        const smooth = (8192 / wavelength - 1) / 3;
        return 1 / ((1 - smooth) / factor + smooth);
      });
      const tensors = [
        ...replaced,
        weights("blk.0.attn_q.weight", 4 * size, 32),
        weights("blk.0.attn_k.weight", 2 * size, 32),
        weights("blk.0.attn_v.weight", 2 * size, 32),
        weights("blk.0.attn_output.weight", 32, 4 * size),
        f32Tensor("rope_freqs.weight", factors, size / 2),
      ];
      const { config, huggingFaceConfig } = await open(buildGguf({ metadata, tensors }));
      assert.deepEqual(config.ropeScaling, {
        type: "llama3",
        factor,
        lowFrequencyFactor: 1,
        highFrequencyFactor: 4,
        originalContextLength: 8192,
      });
      assert.equal((huggingFaceConfig["rope_scaling"] as Record<string, unknown>)["rope_type"], "llama3");
      factors[30] *= 1.01;
      tensors.splice(-1, 1, f32Tensor("rope_freqs.weight", factors, size / 2));
      await assert.rejects(open(buildGguf({ metadata, tensors })), /not those of Llama 3/);
    }
  });

  test("a header longer than the first read, with a token that begins with U+FEFF", async () => {
    const tokens = Array.from({ length: 40000 }, (_, i) => `\uFEFF${"token ".repeat(20)}${i}`);
    const bytes = buildGguf({
      metadata: [...tinyMetadata(), ["tokenizer.ggml.tokens", tokens], ["general.name", "x"]],
      tensors: tinyTensors(),
    });
    assert.ok(bytes.length > 4 * 2 ** 20);
    const header = await readGgufHeader(bytesSource(bytes, "model.gguf"));
    assert.deepEqual(header.metadata.get("tokenizer.ggml.tokens"), tokens);
    assert.equal(header.metadata.get("general.name"), "x");
  });
});

test("rows of a bias and of a matrix are reordered alike", () => {
  const bias = Float32Array.from([0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]);
  interleavedToHalves(bias, 6, 1);
  assert.deepEqual([...bias], [0, 2, 4, 1, 3, 5, 10, 12, 14, 11, 13, 15]);
});

const q8 = shared("models/TinyStories-656K/TinyStories-656K-Q8_0.gguf");
const f32 = shared("models/TinyStories-656K");

test("the Q8_0 twin of TinyStories-656K has the weights of its safetensors", {
  skip: skipUnless(q8),
}, async () => {
  const quantised = await openCheckpoint(q8);
  const original = await openCheckpoint(f32);
  assert.deepEqual(quantised.config, original.config);
  assert.deepEqual([...quantised.tensors.keys()], [...original.tensors.keys()]);
  let worst = 0;
  for (const name of original.tensors.keys()) {
    const expected = await original.read(name);
    const actual = await quantised.read(name);
    const max = expected.reduce((m, v) => Math.max(m, Math.abs(v)), 0);
    const error = expected.reduce((m, v, i) => Math.max(m, Math.abs(v - actual[i])), 0) / max;
    if (original.tensors.get(name)!.shape.length === 1) assert.equal(error, 0, name);
    worst = Math.max(worst, error);
  }
  // Half a step of 1/127 is 0.394 %, the f16 scale may add 0.049 %. Rows in another order would differ by 100 %.
  assert.ok(worst > 0.0039 && worst < 0.00443, `worst error ${worst}`);
  await quantised.close();
  await original.close();
});

for (const path of [
  q8,
  smolLM2,
  ...["gpt-2", "llama-spm", "phi-3", "gpt-neox"].map((name) =>
    shared(`tokenizers/gguf-vocab/ggml-vocab-${name}.gguf`),
  ),
])
  test(`the header agrees with @huggingface/gguf: ${path.split("/").at(-1)}`, {
    skip: skipUnless(path),
  }, async () => {
    const theirs = await gguf(path, { allowLocalFile: true });
    const source = await FileSource.open(path);
    const ours = await readGgufHeader(source);
    await source.close();
    const metadata = theirs.metadata as unknown as Record<string, unknown>;
    assert.equal(Object.keys(metadata).length, ours.metadata.size + 3);
    for (const [key, value] of ours.metadata) {
      // Theirs strips a byte order mark.
      const same = Array.isArray(value)
        ? value.map((item) => (typeof item === "string" ? item.replace(/^\uFEFF/, "") : item))
        : value;
      assert.deepEqual(same, metadata[key], key);
    }
    assert.equal(ours.tensors.size, theirs.tensorInfos.length);
    for (const tensor of theirs.tensorInfos) {
      const mine = ours.tensors.get(tensor.name)!;
      assert.deepEqual(mine.shape, tensor.shape.map(Number).reverse());
      assert.equal(mine.offset, Number(tensor.offset + theirs.tensorDataOffset));
    }
  });
