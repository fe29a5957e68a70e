/** `adapter_config.json` as PEFT (Hugging Face) writes it: what it says of a LoRA adapter, read and written. */
import { isObject, type JsonObject, quote } from "../checkpoint/json.js";
import { CorruptFileError, InputError } from "../errors.js";

export const ADAPTER_CONFIG = "adapter_config.json";
export const ADAPTER_WEIGHTS = "adapter_model.safetensors";

/** Bits of a stored number. 16 is PEFT's own form; the others only PocketLLM reads. */
export type AdapterBits = 16 | 8 | 4;

export interface AdapterConfig {
  readonly rank: number;
  readonly alpha: number;
  /** alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski 2023, arXiv 2312.03732). */
  readonly rankStabilised: boolean;
  readonly bits: AdapterBits;
}

/** PEFT would load a file without the names that it looks for as an adapter of zeros: it must refuse instead. */
const PACKED_TYPE = "POCKETLLM_PACKED_LORA";
const MODULES = /(?:^|\.)(?:self_attn\.)?[qkvo]_proj$|(?:^|\.)(?:mlp\.)?(?:gate|up|down)_proj$/;
const MAX_RANK = 4096;

/** Options that change nothing once an adapter is trained, or that its tensors say too. */
const HARMLESS = new Set([
  ...["auto_mapping", "base_model_name_or_path", "ephemeral_gpu_offload", "eva_config", "exclude_modules"],
  ...["inference_mode", "layers_pattern", "layers_to_transform", "lora_dropout", "megatron_config"],
  ...["megatron_core", "peft_version", "qalora_group_size", "revision", "runtime_config", "task_type"],
]);
/** Ways of starting that leave the base model's weights as they are. */
const STARTS = new Set<unknown>([true, false, null, undefined, "gaussian", "eva", "orthogonal"]);

/**
 * Checks a parsed adapter_config.json; `file` is for messages. CorruptFileError for impossible values, InputError
 * naming the option for what PEFT can do and this program cannot.
 */
export function parseAdapterConfig(json: JsonObject, file: string): AdapterConfig {
  const cannot = (what: string) => new InputError(`${file}: ${what}: such an adapter cannot be used here`);
  const { peft_type: type, r: rank, lora_alpha: alpha, target_modules: modules } = json;
  if (type !== "LORA" && type !== PACKED_TYPE)
    throw cannot(`peft_type is ${quote(String(type))}, not "LORA"`);
  if (!Number.isSafeInteger(rank) || (rank as number) < 1 || (rank as number) > MAX_RANK)
    throw new CorruptFileError(`${file}: r must be a whole number from 1 to ${MAX_RANK}`);
  if (typeof alpha !== "number" || !Number.isFinite(alpha) || alpha === 0 || Math.abs(alpha) > 1e6)
    throw new CorruptFileError(`${file}: lora_alpha must be a number other than 0, at most 1000000`);
  if (Array.isArray(modules))
    for (const module of modules)
      if (typeof module !== "string" || !MODULES.test(module))
        throw cannot(`target_modules names ${quote(String(module))}, which can have no adapter`);
  const { bits } = json;
  if (type === PACKED_TYPE && bits !== 8 && bits !== 4)
    throw new CorruptFileError(`${file}: bits must be 8 or 4`);
  for (const [key, value] of Object.entries(json)) {
    if (key === "bits" && type === PACKED_TYPE) continue;
    if (key === "peft_type" || key === "r" || key === "lora_alpha" || key === "target_modules") continue;
    if (key === "use_rslora" || HARMLESS.has(key) || isOff(value)) continue;
    if (key === "bias" && value === "none") continue;
    if (key === "init_lora_weights" && STARTS.has(value)) continue;
    throw cannot(`the option ${quote(key)} is ${quote(String(JSON.stringify(value)))}`);
  }
  return {
    rank: rank as number,
    alpha,
    rankStabilised: json["use_rslora"] === true,
    bits: type === PACKED_TYPE ? (bits as AdapterBits) : 16,
  };
}

function isOff(value: unknown): boolean {
  if (Array.isArray(value)) return value.length === 0;
  if (isObject(value)) return Object.keys(value).length === 0;
  return value === null || value === false || value === 0 || value === "";
}

export function adapterScale({ rank, alpha, rankStabilised }: AdapterConfig): number {
  return alpha / (rankStabilised ? Math.sqrt(rank) : rank);
}

/** The file of an adapter on all seven matrices of each layer. */
export function writeAdapterConfig({ rank, alpha, rankStabilised, bits }: AdapterConfig): JsonObject {
  return {
    alpha_pattern: {},
    auto_mapping: null,
    base_model_name_or_path: null,
    bias: "none",
    ...(bits !== 16 && { bits }),
    fan_in_fan_out: false,
    inference_mode: true,
    init_lora_weights: true,
    layers_pattern: null,
    layers_to_transform: null,
    lora_alpha: alpha,
    lora_dropout: 0,
    modules_to_save: null,
    peft_type: bits === 16 ? "LORA" : PACKED_TYPE,
    r: rank,
    rank_pattern: {},
    revision: null,
    target_modules: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    task_type: "CAUSAL_LM",
    use_dora: false,
    use_rslora: rankStabilised,
  };
}
