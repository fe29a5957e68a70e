/**
 * Which tensors a model of a given configuration consists of, and the check of what a file has against that:
 * missing, unknown, misshapen and quantised tensors are refused by name when a checkpoint is opened.
 */
import { CorruptFileError } from "../errors.js";
import type { TensorInfo } from "./checkpoint.js";
import type { ModelConfig } from "./config.js";
import { quote } from "./json.js";

export const EMBEDDING = "model.embed_tokens.weight";
export const HEAD = "lm_head.weight";

/**
 * Name -> shape of every tensor, by Hugging Face's names and axis order, in the order of the forward pass.
 * `lm_head.weight` is there only where it is a matrix of its own.
 */
export function expectedTensors(config: ModelConfig): Map<string, readonly number[]> {
  const { vocabularySize, hiddenSize, intermediateSize, headSize } = config;
  const queries = config.heads * headSize;
  const keys = config.kvHeads * headSize;
  const tensors = new Map<string, readonly number[]>([[EMBEDDING, [vocabularySize, hiddenSize]]]);
  for (let layer = 0; layer < config.layers; layer++) {
    const name = `model.layers.${layer}`;
    const linear = (part: string, outputs: number, inputs: number, bias: boolean) => {
      tensors.set(`${name}.${part}.weight`, [outputs, inputs]);
      if (bias) tensors.set(`${name}.${part}.bias`, [outputs]);
    };
    tensors.set(`${name}.input_layernorm.weight`, [hiddenSize]);
    linear("self_attn.q_proj", queries, hiddenSize, config.qkvBias);
    linear("self_attn.k_proj", keys, hiddenSize, config.qkvBias);
    linear("self_attn.v_proj", keys, hiddenSize, config.qkvBias);
    if (config.qkNorm) {
      tensors.set(`${name}.self_attn.q_norm.weight`, [headSize]);
      tensors.set(`${name}.self_attn.k_norm.weight`, [headSize]);
    }
    linear("self_attn.o_proj", hiddenSize, queries, config.outputBias);
    tensors.set(`${name}.post_attention_layernorm.weight`, [hiddenSize]);
    linear("mlp.gate_proj", intermediateSize, hiddenSize, config.mlpBias);
    linear("mlp.up_proj", intermediateSize, hiddenSize, config.mlpBias);
    linear("mlp.down_proj", hiddenSize, intermediateSize, config.mlpBias);
  }
  tensors.set("model.norm.weight", [hiddenSize]);
  if (!config.tiedEmbeddings) tensors.set(HEAD, [vocabularySize, hiddenSize]);
  return tensors;
}

/** A tensor of the model and the name under which the file has it. */
export interface MatchedTensor extends TensorInfo {
  readonly storedName: string;
}

/** Tensors that carry nothing: old checkpoints store the rotary frequencies, which follow from rope_theta. */
const HARMLESS = /\.rotary_emb\.(inv_freq|cos_cached|sin_cached)$/;
/** Suffixes of the tensors that quantisers store in place of a weight. */
const QUANTISED =
  /\.(qweight|qzeros|g_idx|scales|SCB|weight_format|weight_scale|input_scale|absmax|quant_map)$|\.quant_state\./;
const FLOATS = new Set(["F64", "F32", "F16", "BF16"]);

/**
 * Matches the tensors of `file` (by Hugging Face's names) with those that `config` asks for. `storedAs` is not
 * looked at where it is a block type of GGUF. CorruptFileError, one line, naming the first tensor that is wrong.
 */
export function matchTensors(
  config: ModelConfig,
  stored: ReadonlyMap<string, Omit<TensorInfo, "name">>,
  file: string,
): Map<string, MatchedTensor> {
  const matched = new Map<string, MatchedTensor>();
  const used = new Set<string>();
  // Tied: one matrix under either name; of two, Hugging Face uses the embedding.
  const tiedHead = config.tiedEmbeddings && !stored.has(EMBEDDING);
  for (const [name, shape] of expectedTensors(config)) {
    const storedName = name === EMBEDDING && tiedHead ? HEAD : name;
    const tensor = stored.get(storedName);
    if (!tensor) throw missing(name, config, stored, file);
    if (tensor.shape.length !== shape.length || tensor.shape.some((size, i) => size !== shape[i]))
      throw new CorruptFileError(
        `${file}: tensor ${quote(storedName)} has the shape [${tensor.shape.join(", ")}] where the configuration asks for [${shape.join(", ")}]`,
      );
    used.add(storedName);
    matched.set(name, { name, shape, storedAs: tensor.storedAs, storedName });
  }
  if (config.tiedEmbeddings) used.add(HEAD);
  for (const name of stored.keys())
    if (!used.has(name) && !HARMLESS.test(name)) throw unknown(name, config, file);
  return matched;
}

/** Refuses tensors of a safetensors file that hold whole numbers in the place of weights. */
export function requireFloats(tensors: ReadonlyMap<string, MatchedTensor>, file: string): void {
  for (const { storedName, storedAs } of tensors.values())
    if (!FLOATS.has(storedAs))
      throw new CorruptFileError(
        `${file}: tensor ${quote(storedName)} holds ${storedAs}; weights must be F32, F16 or BF16 (a quantised model cannot be read)`,
      );
}

function missing(
  name: string,
  config: ModelConfig,
  stored: ReadonlyMap<string, unknown>,
  file: string,
): CorruptFileError {
  const quantised = [...stored.keys()].find((other) => QUANTISED.test(other));
  const hint = quantised
    ? ` but there is ${quote(quantised)}: a quantised model cannot be read`
    : name === HEAD
      ? " and tie_word_embeddings is not set in the configuration"
      : ` (${config.architecture}, ${config.layers} layers); get the files again`;
  return new CorruptFileError(`${file}: tensor ${quote(name)} is missing${hint}`);
}

function unknown(name: string, config: ModelConfig, file: string): CorruptFileError {
  const reason = QUANTISED.test(name)
    ? "a quantised model cannot be read"
    : "its effect on the model is not known, so that leaving it out could change results";
  return new CorruptFileError(
    `${file}: tensor ${quote(name)} is not a part of a ${config.architecture} model of ${config.layers} layers; ${reason}`,
  );
}
