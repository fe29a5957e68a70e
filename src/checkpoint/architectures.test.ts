import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { InputError } from "../errors.js";
import { parseModelConfig } from "./architectures.js";
import type { JsonObject } from "./json.js";
import { expectedTensors } from "./tensors.js";

const llama: JsonObject = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_act: "silu",
  vocab_size: 1000,
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 2,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  bos_token_id: 1,
  eos_token_id: 2,
};
const of = (type: string, className: string, more: JsonObject = {}) => ({
  ...llama,
  model_type: type,
  architectures: [className],
  ...more,
});
const mistral = of("mistral", "MistralForCausalLM");
const qwen2 = of("qwen2", "Qwen2ForCausalLM");
const qwen3 = of("qwen3", "Qwen3ForCausalLM");
const parse = (config: JsonObject) => parseModelConfig(config, "config.json");
const without = (key: string, config = llama) =>
  Object.fromEntries(Object.entries(config).filter(([k]) => k !== key));

test("llama: every field", () => {
  assert.deepEqual(parse(llama), {
    architecture: "llama",
    vocabularySize: 1000,
    hiddenSize: 64,
    intermediateSize: 160,
    layers: 2,
    heads: 8,
    kvHeads: 4,
    headSize: 8,
    contextLength: 512,
    ropeTheta: 10000,
    ropeScaling: null,
    rmsNormEpsilon: 1e-5,
    tiedEmbeddings: false,
    qkvBias: false,
    outputBias: false,
    mlpBias: false,
    qkNorm: false,
    slidingWindow: null,
    bosTokenId: 1,
    eosTokenIds: [2],
  });
});

test("biases, head norms and head sizes by architecture", () => {
  const biased = parse({
    ...llama,
    attention_bias: true,
    mlp_bias: true,
    head_dim: 16,
    tie_word_embeddings: true,
  });
  assert.deepEqual(
    [biased.qkvBias, biased.outputBias, biased.mlpBias, biased.headSize, biased.tiedEmbeddings],
    [true, true, true, 16, true],
  );
  assert.deepEqual(
    [parse(qwen2).qkvBias, parse(qwen2).outputBias, parse(qwen2).qkNorm],
    [true, false, false],
  );
  assert.deepEqual([parse(qwen3).qkvBias, parse(qwen3).qkNorm, parse(qwen3).headSize], [false, true, 128]);
  assert.equal(parse({ ...mistral, head_dim: null }).headSize, 8);
  assert.equal(parse(without("num_key_value_heads")).kvHeads, 8);
});

test("defaults of the classes for absent fields", () => {
  const bare = without("max_position_embeddings", without("rope_theta", without("rms_norm_eps", llama)));
  const config = parse(bare);
  assert.deepEqual([config.contextLength, config.ropeTheta, config.rmsNormEpsilon], [2048, 10000, 1e-6]);
});

test("rope scaling in the old and in the new form", () => {
  const llama3 = {
    factor: 8,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  };
  const expected = {
    type: "llama3",
    factor: 8,
    lowFrequencyFactor: 1,
    highFrequencyFactor: 4,
    originalContextLength: 8192,
  };
  assert.deepEqual(
    parse({ ...llama, rope_scaling: { rope_type: "llama3", ...llama3 } }).ropeScaling,
    expected,
  );
  const renewed = parse({
    ...without("rope_theta"),
    rope_parameters: { rope_type: "llama3", rope_theta: 500000, ...llama3 },
  });
  assert.deepEqual([renewed.ropeScaling, renewed.ropeTheta], [expected, 500000]);
  const scaling = (value: JsonObject) => parse({ ...llama, rope_scaling: value }).ropeScaling;
  assert.deepEqual(scaling({ type: "linear", factor: 2 }), { type: "linear", factor: 2 });
  assert.equal(scaling({ type: "linear", factor: 1 }), null);
  assert.equal(scaling({ rope_type: "default" }), null);
  assert.equal(parse({ ...llama, rope_parameters: { rope_theta: 5, rope_type: "default" } }).ropeTheta, 5);
});

test("sliding windows", () => {
  assert.equal(parse({ ...mistral, sliding_window: 128 }).slidingWindow, 128);
  assert.equal(parse({ ...mistral, sliding_window: null }).slidingWindow, null);
  assert.equal(parse({ ...mistral, sliding_window: 512 }).slidingWindow, null, "no shorter than the context");
  assert.equal(parse({ ...llama, sliding_window: 128 }).slidingWindow, null, "llama ignores it");
  assert.equal(parse({ ...qwen2, sliding_window: 128, use_sliding_window: false }).slidingWindow, null);
  const on = { ...qwen2, sliding_window: 128, use_sliding_window: true };
  assert.equal(parse({ ...on, max_window_layers: 0 }).slidingWindow, 128);
  assert.equal(parse({ ...on, max_window_layers: 2 }).slidingWindow, null);
  assert.throws(() => parse({ ...on, max_window_layers: 1 }), /only some of the layers/);
  assert.throws(
    () => parse({ ...on, layer_types: ["full_attention", "sliding_attention"] }),
    /only some of the layers/,
  );
});

test("eos_token_id: a number, a list, null", () => {
  assert.deepEqual(parse({ ...llama, eos_token_id: [2, 5, 2] }).eosTokenIds, [2, 5]);
  assert.deepEqual(parse({ ...llama, eos_token_id: null, bos_token_id: null }).eosTokenIds, []);
  assert.equal(parse({ ...llama, bos_token_id: null }).bosTokenId, null);
});

describe("refused by name", () => {
  const refused: [string, JsonObject, RegExp][] = [
    ["no model type", without("model_type"), /model_type is missing/],
    [
      "inherited name",
      { ...llama, model_type: "constructor" },
      /architecture "constructor" is not supported/,
    ],
    ["gemma", { ...llama, model_type: "gemma2" }, /architecture "gemma2" is not supported/],
    ["yarn", { ...llama, rope_scaling: { type: "yarn", factor: 2 } }, /type "yarn" is not supported/],
    [
      "rope by layer",
      { ...llama, rope_parameters: { full_attention: { rope_theta: 1 } } },
      /differ by layer/,
    ],
    ["llama3 factors", { ...llama, rope_scaling: { rope_type: "llama3", factor: 8 } }, /low_freq_factor is/],
    ["rope as a list", { ...llama, rope_scaling: [] }, /rope_scaling is \[\]/],
    ["gptq", { ...llama, quantization_config: { quant_method: "gptq" } }, /already \("gptq"\)/],
    ["ours", { ...llama, quantization_config: { quant_method: "pocketllm" } }, /pocketllm\.json is missing/],
    ["experts", { ...llama, num_local_experts: 8 }, /mixture of experts/],
    ["gelu", { ...llama, hidden_act: "gelu_new" }, /hidden_act "gelu_new"/],
    ["odd head", { ...llama, head_dim: 7 }, /head_dim 7 is odd/],
    ["partial rotation", { ...llama, partial_rotary_factor: 0.5 }, /partial_rotary_factor/],
    ["interleaved rotation", { ...llama, rope_interleaved: true }, /rope_interleaved/],
    ["mistral with bias", { ...mistral, attention_bias: true }, /attention_bias is not a part of mistral/],
    ["no K/V heads", without("num_key_value_heads", mistral), /num_key_value_heads is missing/],
    ["more K/V heads than heads", { ...llama, num_key_value_heads: 16 }, /from 1 to 8/],
    ["zero epsilon", { ...llama, rms_norm_eps: 0 }, /rms_norm_eps is 0/],
    ["bias as text", { ...llama, attention_bias: "false" }, /attention_bias is "false"/],
    ["bos outside", { ...llama, bos_token_id: 1000 }, /bos_token_id 1000/],
    ["many eos", { ...llama, eos_token_id: Array(100).fill(1) }, /lists 100 tokens/],
  ];
  for (const [what, config, message] of refused)
    test(what, () => {
      assert.throws(
        () => parse(config),
        (error: Error) =>
          error instanceof InputError &&
          message.test(error.message) &&
          error.message.startsWith("config.json: "),
      );
    });
});

test("expected tensors: names, shapes and biases", () => {
  const tied = expectedTensors(parse({ ...llama, tie_word_embeddings: true }));
  assert.equal(tied.size, 2 + 2 * 9);
  assert.deepEqual(tied.get("model.layers.1.self_attn.k_proj.weight"), [32, 64]);
  assert.deepEqual(tied.get("model.layers.1.mlp.down_proj.weight"), [64, 160]);
  assert.ok(!tied.has("lm_head.weight"));
  const q3 = expectedTensors(parse({ ...qwen3, head_dim: 32 }));
  assert.deepEqual(q3.get("model.layers.0.self_attn.q_norm.weight"), [32]);
  assert.deepEqual(q3.get("model.layers.0.self_attn.o_proj.weight"), [64, 256]);
  assert.deepEqual(q3.get("lm_head.weight"), [1000, 64]);
  const q2 = expectedTensors(parse(qwen2));
  assert.deepEqual(q2.get("model.layers.0.self_attn.v_proj.bias"), [32]);
  assert.ok(!q2.has("model.layers.0.self_attn.o_proj.bias"));
  const all = expectedTensors(parse({ ...llama, attention_bias: true, mlp_bias: true }));
  assert.equal([...all.keys()].filter((name) => name.endsWith(".bias")).length, 2 * 7);
});
