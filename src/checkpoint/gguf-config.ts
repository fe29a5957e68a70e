/**
 * GGUF metadata -> Hugging Face's config.json, and llama.cpp's tensor names -> Hugging Face's. What comes out
 * goes through the same checks as a config.json from disk (architectures.ts).
 */
import { InputError } from "../errors.js";
import type { GgufHeader, GgufMetadata, GgufValue } from "./gguf-header.js";
import { type JsonObject, quote } from "./json.js";

/** llama.cpp's architectures that can be run. Mistral models are "llama" there. */
const ARCHITECTURES: Readonly<Record<string, { readonly type: string; readonly className: string }>> = {
  llama: { type: "llama", className: "LlamaForCausalLM" },
  qwen2: { type: "qwen2", className: "Qwen2ForCausalLM" },
  qwen3: { type: "qwen3", className: "Qwen3ForCausalLM" },
};

/** Typed access to metadata; complaints name the file and the key. */
export class MetadataReader {
  constructor(
    readonly metadata: GgufMetadata,
    readonly file: string,
  ) {}

  fail(reason: string): never {
    throw new InputError(`${this.file}: ${reason}`);
  }

  number(key: string): number | undefined {
    return this.#typed(key, "number", "a number") as number | undefined;
  }

  string(key: string): string | undefined {
    return this.#typed(key, "string", "a string") as string | undefined;
  }

  boolean(key: string): boolean | undefined {
    return this.#typed(key, "boolean", "true or false") as boolean | undefined;
  }

  /** An array whose items are all of the given type. */
  array(key: string, type: "string"): readonly string[] | undefined;
  array(key: string, type: "number"): readonly number[] | undefined;
  array(key: string, type: "string" | "number"): readonly GgufValue[] | undefined {
    const value = this.metadata.get(key);
    if (value === undefined) return undefined;
    if (!Array.isArray(value) || (value.length > 0 && typeof value[0] !== type))
      this.fail(`the metadata key ${quote(key)} is not an array of ${type}s`);
    return value;
  }

  #typed(key: string, type: string, expected: string): GgufValue | undefined {
    const value = this.metadata.get(key);
    if (value === undefined) return undefined;
    if (typeof value !== type)
      this.fail(
        `the metadata key ${quote(key)} is ${Array.isArray(value) ? "an array" : typeof value === "string" ? quote(value) : String(value)}, expected ${expected}`,
      );
    return value;
  }
}

/**
 * The config.json that the model would have on the hub. `ropeFactors` are the values of `rope_freqs.weight`
 * (one factor for each rotated pair), or null where the file has no such tensor.
 */
export function ggufConfig(header: GgufHeader, file: string, ropeFactors: Float32Array | null): JsonObject {
  const read: MetadataReader = new MetadataReader(header.metadata, file);
  const name = read.string("general.architecture");
  if (name === undefined) read.fail("general.architecture is missing");
  const split = read.number("split.count") ?? 1;
  if (split > 1) read.fail(`is one of ${split} parts; join them first (llama-gguf-split --merge)`);
  if (!Object.hasOwn(ARCHITECTURES, name))
    read.fail(
      `the architecture ${quote(name)} is not supported; supported are ${Object.keys(ARCHITECTURES).join(", ")}`,
    );
  const { type, className } = ARCHITECTURES[name];
  const number = (key: string) => read.number(`${name}.${key}`);
  if ((number("expert_count") ?? 0) > 0) read.fail("a mixture of experts is not supported");

  const hidden = number("embedding_length");
  const heads = number("attention.head_count");
  const headSize = number("attention.key_length") ?? (hidden ?? 0) / (heads ?? 1);
  for (const key of ["attention.value_length", "rope.dimension_count"]) {
    const size = number(key);
    if (size !== undefined && size !== headSize)
      read.fail(
        `${name}.${key} is ${size} where the head size is ${headSize}; partial rotation is not supported`,
      );
  }
  const contextLength = number("context_length");
  const window = number("attention.sliding_window");
  // Only Mistral's first models slide; Hugging Face's Llama class would ignore the window.
  const sliding = type === "llama" && !!window && window < (contextLength ?? 0);
  const theta = number("rope.freq_base") ?? 10000;
  const has = (tensor: string) => header.tensors.has(tensor);
  const biased = type === "llama" && has("blk.0.attn_q.bias");
  return dropUndefined({
    architectures: [sliding ? "MistralForCausalLM" : className],
    model_type: sliding ? "mistral" : type,
    hidden_act: "silu",
    vocab_size:
      header.tensors.get("token_embd.weight")?.shape[0] ??
      number("vocab_size") ??
      read.array("tokenizer.ggml.tokens", "string")?.length,
    hidden_size: hidden,
    intermediate_size: number("feed_forward_length"),
    num_hidden_layers: number("block_count"),
    num_attention_heads: heads,
    num_key_value_heads: number("attention.head_count_kv") ?? heads,
    head_dim: headSize,
    max_position_embeddings: contextLength,
    rms_norm_eps: shortest(number("attention.layer_norm_rms_epsilon")),
    rope_theta: shortest(theta),
    rope_scaling: ropeScaling(read, name, theta, headSize, ropeFactors),
    sliding_window: sliding ? window : undefined,
    tie_word_embeddings: !has("output.weight"),
    attention_bias: biased || undefined,
    mlp_bias: (type === "llama" && has("blk.0.ffn_gate.bias")) || undefined,
    bos_token_id: read.number("tokenizer.ggml.bos_token_id"),
    eos_token_id: endTokens(read),
  });
}

/** End of text and, where it is another token, end of turn. */
function endTokens(read: MetadataReader): number | number[] | undefined {
  const eos = read.number("tokenizer.ggml.eos_token_id");
  const eot = read.number("tokenizer.ggml.eot_token_id");
  return eos !== undefined && eot !== undefined && eos !== eot ? [eos, eot] : (eos ?? eot);
}

function ropeScaling(
  read: MetadataReader,
  name: string,
  theta: number,
  headSize: number,
  factors: Float32Array | null,
): JsonObject | undefined {
  const type = read.string(`${name}.rope.scaling.type`) ?? "none";
  const factor = read.number(`${name}.rope.scaling.factor`) ?? read.number(`${name}.rope.scale_linear`) ?? 1;
  const linear =
    type === "linear" || (type === "none" && factor !== 1 && !read.metadata.has(`${name}.rope.scaling.type`));
  if (!linear && type !== "none") read.fail(`rope scaling of type ${quote(type)} is not supported`);
  if (!factors) return linear && factor !== 1 ? { rope_type: "linear", factor } : undefined;
  if (linear && factor !== 1)
    read.fail("rope_freqs.weight together with linear rope scaling is not supported");
  const scaling = llama3Scaling(factors, theta, headSize);
  if (!scaling)
    read.fail(
      "the factors of rope_freqs.weight are not those of Llama 3's rope scaling, and no other is supported",
    );
  return { rope_type: "llama3", ...scaling };
}

/**
 * llama.cpp stores Llama 3's rope scaling as one factor for each pair: 1 for short wavelengths, `factor` for
 * long ones, a blend between. The parameters themselves are lost; all published models have low 1 and high 4
 * with an original context of 8192, so that only `factor` is open, and every value is checked against that.
 */
function llama3Scaling(factors: Float32Array, theta: number, headSize: number): JsonObject | null {
  const factor = shortest(factors.reduce((a, b) => Math.max(a, b), 0))!;
  const [low, high, context] = [1, 4, 8192];
  if (factors.length !== headSize / 2) return null;
  const fits = factors.every((actual, i) => {
    const wavelength = 2 * Math.PI * theta ** ((2 * i) / headSize);
    const blend = Math.min(1, Math.max(0, (context / wavelength - low) / (high - low)));
    const expected = 1 / ((1 - blend) / factor + blend);
    // f32 in, and 1/theta^x in f32 at the converter: 1e-4 separates rounding from other parameters.
    return Math.abs(actual - expected) <= 1e-4 * expected;
  });
  if (!fits) return null;
  return { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: context };
}

/** An f32 that stands for a short decimal: 9.999999747378752e-6 -> 1e-5. */
function shortest(value: number | undefined): number | undefined {
  return value === undefined ? undefined : Number(value.toPrecision(7));
}

function dropUndefined(object: Record<string, unknown>): JsonObject {
  return Object.fromEntries(Object.entries(object).filter(([, value]) => value !== undefined));
}

const LAYER_PARTS: Readonly<Record<string, string>> = {
  attn_norm: "input_layernorm",
  attn_q: "self_attn.q_proj",
  attn_k: "self_attn.k_proj",
  attn_v: "self_attn.v_proj",
  attn_output: "self_attn.o_proj",
  attn_q_norm: "self_attn.q_norm",
  attn_k_norm: "self_attn.k_norm",
  attn_rot_embd: "self_attn.rotary_emb",
  ffn_norm: "post_attention_layernorm",
  ffn_gate: "mlp.gate_proj",
  ffn_up: "mlp.up_proj",
  ffn_down: "mlp.down_proj",
};

const GLOBALS: Readonly<Record<string, string>> = {
  "token_embd.weight": "model.embed_tokens.weight",
  "output_norm.weight": "model.norm.weight",
  "output.weight": "lm_head.weight",
};

/** Hugging Face's name of a tensor of llama.cpp; names that are not known stay as they are. */
export function huggingFaceName(name: string): string {
  if (Object.hasOwn(GLOBALS, name)) return GLOBALS[name];
  const match = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(name);
  if (!match || !Object.hasOwn(LAYER_PARTS, match[2])) return name;
  const [, layer, part, kind] = match;
  // Old converters stored the rotary frequencies.
  return `model.layers.${layer}.${LAYER_PARTS[part]}.${part === "attn_rot_embd" ? "inv_freq" : kind}`;
}
