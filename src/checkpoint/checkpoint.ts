/**
 * The interface of an opened checkpoint: a model on disk that is read tensor by tensor. Implementations:
 * Hugging Face folders, GGUF files, llama2.c files. Tensor names and axis order are Hugging Face's
 * (`model.layers.0.self_attn.q_proj.weight`, [outputs, inputs], rotate-half RoPE), whatever the file has.
 */
import type { DType } from "../tensor/dtype.js";
import type { ModelConfig } from "./config.js";

export interface TensorInfo {
  readonly name: string;
  readonly shape: readonly number[];
  /** The type that the values had on disk: a dtype, or a GGUF block type such as "Q4_1". */
  readonly storedAs: DType | (string & {});
}

/** What is needed to build a tokenizer, in Hugging Face's file shapes. */
export interface TokenizerFiles {
  /** Parsed tokenizer.json. */
  readonly tokenizer: Record<string, unknown>;
  /** Parsed tokenizer_config.json (chat_template, bos_token, eos_token, add_bos_token). */
  readonly config: Record<string, unknown>;
}

export interface Checkpoint {
  /** What the user named: path or id, for messages. */
  readonly source: string;
  readonly format: "huggingface" | "gguf" | "llama2.c";
  readonly config: ModelConfig;
  /** The Hugging Face config.json of this model (synthesised where the file has none). */
  readonly huggingFaceConfig: Readonly<Record<string, unknown>>;
  /** generation_config.json, where there is one. */
  readonly generationConfig: Readonly<Record<string, unknown>> | null;
  /**
   * Exactly the tensors that the architecture needs, checked for presence and shape when the checkpoint is
   * opened. Where embeddings are tied the one matrix is called `model.embed_tokens.weight`, also when the
   * file only stores `lm_head.weight`; `lm_head.weight` is listed only when it is a matrix of its own.
   */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /**
   * Reads one tensor as f32, row-major; nothing else is held in memory. Throws CorruptFileError on NaN or
   * infinite values, naming the tensor.
   */
  read(name: string): Promise<Float32Array>;
  /** The tokenizer's files, or null where the checkpoint has none. */
  tokenizer(): Promise<TokenizerFiles | null>;
  /** SHA-256 (hex) over the weight files, for the manifest. Streams the files once; cached. */
  hash(signal?: AbortSignal): Promise<string>;
  /** Bytes of the model as 16-bit safetensors: the sum over tensors of 2 x elements. */
  readonly bytes16: number;
  close(): Promise<void>;
}
