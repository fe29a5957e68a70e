/**
 * What a decoder-only model of the Llama family is, whatever file it came from: the numbers that the
 * transformer needs. Parsed and checked once; every architecture we cannot run is refused here by name.
 */
export type Architecture = "llama" | "mistral" | "qwen2" | "qwen3";

/** Rotary position embedding scaling, as in Hugging Face's `rope_scaling`. */
export type RopeScaling =
  | { readonly type: "linear"; readonly factor: number }
  | {
      readonly type: "llama3";
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      readonly originalContextLength: number;
    };

export interface ModelConfig {
  readonly architecture: Architecture;
  readonly vocabularySize: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly layers: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  /** Longest sequence the model was made for, in tokens. */
  readonly contextLength: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling | null;
  readonly rmsNormEpsilon: number;
  /** The output head is the token embedding. */
  readonly tiedEmbeddings: boolean;
  /** q, k and v projections have a bias (qwen2; llama with `attention_bias`). */
  readonly qkvBias: boolean;
  /** The attention output projection has a bias (llama with `attention_bias`). */
  readonly outputBias: boolean;
  /** The three feed-forward projections have a bias (llama with `mlp_bias`). */
  readonly mlpBias: boolean;
  /** RMSNorm over each head of q and k before rotation (qwen3). */
  readonly qkNorm: boolean;
  /** Attention looks back this many tokens at most (mistral), or null. */
  readonly slidingWindow: number | null;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
}
