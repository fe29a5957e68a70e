/**
 * Hugging Face's config.json -> ModelConfig. Only what the transformer computes exactly is accepted; any other
 * architecture, rope scaling, activation or quantisation is refused here by name, before weights are read.
 */
import { InputError } from "../errors.js";
import type { Architecture, ModelConfig, RopeScaling } from "./config.js";
import { isObject, type JsonObject, quote } from "./json.js";

/** By `model_type`: the class that config.json must name, and the class's own defaults for absent fields. */
const ARCHITECTURES: Readonly<
  Record<
    Architecture,
    { readonly className: string; readonly contextLength: number; readonly headSize?: number }
  >
> = {
  llama: { className: "LlamaForCausalLM", contextLength: 2048 },
  mistral: { className: "MistralForCausalLM", contextLength: 131072 },
  qwen2: { className: "Qwen2ForCausalLM", contextLength: 32768 },
  qwen3: { className: "Qwen3ForCausalLM", contextLength: 32768, headSize: 128 },
};

/** Largest values accepted: several times those of any published model, small enough to multiply safely. */
const MAX = {
  vocabulary: 2 ** 22,
  hidden: 2 ** 17,
  intermediate: 2 ** 20,
  layers: 1024,
  heads: 4096,
  headSize: 1024,
  context: 2 ** 27,
} as const;

/** `file` is named in messages. Throws InputError on anything that cannot be run exactly. */
export function parseModelConfig(config: JsonObject, file: string): ModelConfig {
  const read = new ConfigReader(config, file);
  const architecture = parseArchitecture(read);
  const defaults = ARCHITECTURES[architecture];
  refuseQuantisation(read);
  const activation = config["hidden_act"] ?? "silu";
  if (activation !== "silu") read.fail(`hidden_act ${show(activation)} is not supported (only "silu")`);

  const vocabularySize = read.integer("vocab_size", MAX.vocabulary);
  const hiddenSize = read.integer("hidden_size", MAX.hidden);
  const heads = read.integer("num_attention_heads", MAX.heads);
  // Llama's class takes one K/V head a query head when the field is absent; the others have fixed numbers.
  const kvHeads = read.integer("num_key_value_heads", heads, architecture === "llama" ? heads : undefined);
  if (heads % kvHeads !== 0)
    read.fail(`num_attention_heads ${heads} is not a multiple of num_key_value_heads ${kvHeads}`);
  const headSize = read.integer("head_dim", MAX.headSize, defaults.headSize ?? hiddenSize / heads);
  if (headSize % 2 !== 0) read.fail(`head_dim ${headSize} is odd, so that it cannot be rotated in pairs`);
  const contextLength = read.integer("max_position_embeddings", MAX.context, defaults.contextLength);
  const layers = read.integer("num_hidden_layers", MAX.layers);

  for (const key of ["num_experts", "num_local_experts"])
    if (typeof config[key] === "number" && config[key] > 0)
      read.fail("a mixture of experts is not supported");
  if ((config["partial_rotary_factor"] ?? 1) !== 1) read.fail("partial_rotary_factor is not supported");
  if (config["rope_interleaved"] === true) read.fail("rope_interleaved is not supported");

  const attentionBias = read.boolean("attention_bias");
  const mlpBias = read.boolean("mlp_bias");
  if (attentionBias && (architecture === "mistral" || architecture === "qwen2"))
    read.fail(`attention_bias is not a part of ${architecture}`);
  if (mlpBias && architecture !== "llama") read.fail(`mlp_bias is not a part of ${architecture}`);
  const rope = parseRope(read);
  return {
    architecture,
    vocabularySize,
    hiddenSize,
    intermediateSize: read.integer("intermediate_size", MAX.intermediate),
    layers,
    heads,
    kvHeads,
    headSize,
    contextLength,
    ropeTheta: rope.theta,
    ropeScaling: rope.scaling,
    rmsNormEpsilon: read.positive("rms_norm_eps", config, 1e-6),
    tiedEmbeddings: read.boolean("tie_word_embeddings"),
    qkvBias: architecture === "qwen2" || attentionBias,
    outputBias: attentionBias,
    mlpBias,
    qkNorm: architecture === "qwen3",
    slidingWindow: parseSlidingWindow(read, architecture, layers, contextLength),
    bosTokenId: parseTokenIds(read, "bos_token_id", config, vocabularySize)[0] ?? null,
    eosTokenIds: parseTokenIds(read, "eos_token_id", config, vocabularySize),
  };
}

/** The ids of `key` (a number, a list or absent) in config.json or generation_config.json. */
export function parseTokenIds(
  read: ConfigReader,
  key: string,
  from: Readonly<JsonObject>,
  vocabularySize: number,
): number[] {
  const value = from[key] ?? [];
  const ids: unknown[] = Array.isArray(value) ? value : [value];
  if (ids.length > 64) read.fail(`${key} lists ${ids.length} tokens`);
  for (const id of ids)
    if (!Number.isSafeInteger(id) || (id as number) < 0 || (id as number) >= vocabularySize)
      read.fail(`${key} ${show(id)} is not a token below vocab_size ${vocabularySize}`);
  return [...new Set(ids as number[])];
}

/** Typed access to the fields of a configuration file; complaints name the file. */
export class ConfigReader {
  constructor(
    readonly config: Readonly<JsonObject>,
    readonly file: string,
  ) {}

  fail(reason: string): never {
    throw new InputError(`${this.file}: ${reason}`);
  }

  /** A whole number 1 ... max. Without a fallback the field is required. */
  integer(key: string, max: number, fallback?: number): number {
    const value = this.config[key] ?? fallback;
    if (value === undefined) this.fail(`${key} is missing`);
    if (!Number.isSafeInteger(value) || (value as number) < 1 || (value as number) > max)
      this.fail(`${key} is ${show(value)}, expected a whole number from 1 to ${max}`);
    return value as number;
  }

  boolean(key: string): boolean {
    const value = this.config[key] ?? false;
    if (typeof value !== "boolean") this.fail(`${key} is ${show(value)}, expected true or false`);
    return value;
  }

  /** A finite number above zero. */
  positive(key: string, from: Readonly<JsonObject>, fallback?: number): number {
    const value = from[key] ?? fallback;
    if (typeof value !== "number" || !Number.isFinite(value) || value <= 0)
      this.fail(`${key} is ${show(value)}, expected a number above 0`);
    return value;
  }
}

function parseArchitecture(read: ConfigReader): Architecture {
  const { model_type: type, architectures } = read.config;
  const known = Object.keys(ARCHITECTURES).join(", ");
  if (typeof type !== "string") read.fail(`model_type is missing; supported are ${known}`);
  if (!Object.hasOwn(ARCHITECTURES, type))
    read.fail(`the architecture ${quote(type)} is not supported; supported are ${known}`);
  const { className } = ARCHITECTURES[type as Architecture];
  if (Array.isArray(architectures) && !architectures.includes(className))
    read.fail(
      `the model class ${show(architectures[0])} is not supported; ${type} models must be ${className}`,
    );
  return type as Architecture;
}

function refuseQuantisation(read: ConfigReader): void {
  const value = read.config["quantization_config"] ?? read.config["compression_config"];
  if (value === undefined || value === null) return;
  const method = isObject(value) ? value["quant_method"] : undefined;
  if (method === "pocketllm")
    read.fail("the model is compressed by PocketLLM already, but pocketllm.json is missing");
  read.fail(
    `the model is quantised already (${typeof method === "string" ? quote(method) : "quantization_config"}), which cannot be read; give the original 16-bit model`,
  );
}

/** `rope_theta` + `rope_scaling`, or since Transformers 5 both in `rope_parameters`. */
function parseRope(read: ConfigReader): { theta: number; scaling: RopeScaling | null } {
  const { config } = read;
  const parameters = config["rope_parameters"] ?? undefined;
  const scaling = config["rope_scaling"] ?? undefined;
  for (const [key, value] of [
    ["rope_parameters", parameters],
    ["rope_scaling", scaling],
  ] as const)
    if (value !== undefined && !isObject(value)) read.fail(`${key} is ${show(value)}, expected an object`);
  const from = isObject(parameters) ? parameters : config;
  const theta = read.positive("rope_theta", from["rope_theta"] == null ? config : from, 10000);
  return { theta, scaling: parseRopeScaling(read, (parameters ?? scaling ?? {}) as JsonObject) };
}

function parseRopeScaling(read: ConfigReader, rope: JsonObject): RopeScaling | null {
  const type = rope["rope_type"] ?? rope["type"] ?? "default";
  if (type === "default") {
    if (isObject(Object.values(rope)[0])) read.fail("rope parameters that differ by layer are not supported");
    return null;
  }
  const number = (key: string) => read.positive(key, rope);
  if (type === "linear") {
    const factor = number("factor");
    return factor === 1 ? null : { type, factor };
  }
  if (type !== "llama3")
    read.fail(`rope scaling of type ${show(type)} is not supported; supported are linear, llama3`);
  const scaling = {
    type: "llama3" as const,
    factor: number("factor"),
    lowFrequencyFactor: number("low_freq_factor"),
    highFrequencyFactor: number("high_freq_factor"),
    originalContextLength: number("original_max_position_embeddings"),
  };
  if (scaling.highFrequencyFactor <= scaling.lowFrequencyFactor)
    read.fail("rope scaling: high_freq_factor must be above low_freq_factor");
  return scaling;
}

/** Mistral slides whenever a window is given; Qwen only with `use_sliding_window`, from a layer on. */
function parseSlidingWindow(
  read: ConfigReader,
  architecture: Architecture,
  layers: number,
  contextLength: number,
): number | null {
  const { config } = read;
  if (architecture === "llama" || config["sliding_window"] == null) return null;
  if (architecture !== "mistral" && !read.boolean("use_sliding_window")) return null;
  const window = read.integer("sliding_window", MAX.context);
  if (window >= contextLength) return null;
  const types = config["layer_types"];
  const sliding = Array.isArray(types)
    ? types.filter((type) => type === "sliding_attention").length
    : architecture === "mistral"
      ? layers
      : layers - Math.min(layers, nonNegative(read, "max_window_layers"));
  if (sliding === 0) return null;
  if (sliding !== layers) read.fail("a sliding window in only some of the layers is not supported");
  return window;
}

function nonNegative(read: ConfigReader, key: string): number {
  return read.config[key] === 0 ? 0 : read.integer(key, MAX.context);
}

/** A value from a file, on one short line. */
function show(value: unknown): string {
  const text = JSON.stringify(value) ?? String(value);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
}
