/**
 * What training asks of a machine beyond `Backend`: the gradients of its operations, losses and the
 * optimiser's step. Gradients named `d…` are of the loss with respect to that tensor. Those of activations
 * are overwritten unless said otherwise, those of parameters are added to, so that several windows accumulate.
 * Implementations: reference/training.ts (plain, the definition), wasm/training.ts. All tensors f32, row-major.
 */
import type { AttentionOptions, Buffer, RopeOptions } from "./backend.js";

export interface MatmulBackwardInputOptions {
  /** [tokens, outputs] */
  readonly dy: Buffer;
  /** [outputs, inputs] */
  readonly weight: Buffer;
  /** [tokens, inputs] */
  readonly dx: Buffer;
  readonly tokens: number;
  readonly inputs: number;
  readonly outputs: number;
  /** Adds to dx instead of overwriting it: for matrices that share an input. */
  readonly accumulate?: boolean;
}

export interface MatmulBackwardWeightOptions {
  /** [tokens, outputs] */
  readonly dy: Buffer;
  /** [tokens, inputs] */
  readonly x: Buffer;
  /** [outputs, inputs], added to. */
  readonly dWeight: Buffer;
  readonly tokens: number;
  readonly inputs: number;
  readonly outputs: number;
}

export interface RmsNormBackwardOptions {
  /** [rows, columns]: what the norm was given. */
  readonly x: Buffer;
  /** [columns] */
  readonly weight: Buffer;
  /** [rows, columns] */
  readonly dy: Buffer;
  /** [rows, columns], added to: the residual's gradient is there already. */
  readonly dx: Buffer;
  /** [columns], added to; absent when the weight is not trained. */
  readonly dWeight?: Buffer | undefined;
  readonly rows: number;
  readonly columns: number;
  readonly epsilon: number;
}

/** As in the forward call, from position 0: keys and values hold exactly `tokens` positions. */
export interface AttentionBackwardOptions
  extends Omit<AttentionOptions, "y" | "position" | "keys" | "values" | "packed"> {
  /** [tokens, kvHeads * headSize] */
  readonly keys: Buffer;
  readonly values: Buffer;
  /** [tokens, heads * headSize], the forward result. */
  readonly y: Buffer;
  /** [tokens, heads * headSize] */
  readonly dy: Buffer;
  /** [tokens, heads * headSize], overwritten. */
  readonly dQuery: Buffer;
  /** [tokens, kvHeads * headSize], overwritten. */
  readonly dKeys: Buffer;
  readonly dValues: Buffer;
}

export interface AdamWOptions {
  readonly parameter: Buffer;
  readonly gradient: Buffer;
  /** First and second moments, as long as the parameter; zero before the first step. */
  readonly mean: Buffer;
  readonly square: Buffer;
  readonly length: number;
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Decoupled: parameter -= learningRate * weightDecay * parameter. */
  readonly weightDecay: number;
  /** Multiplies the gradient first: clipping. */
  readonly gradientScale: number;
  /** 1 for the first step; corrects the moments' bias. */
  readonly step: number;
}

export interface TrainingBackend {
  /** dx = dy W, or dx += dy W. */
  matmulBackwardInput(options: MatmulBackwardInputOptions): void;
  /** dW += dyᵀ x */
  matmulBackwardWeight(options: MatmulBackwardWeightOptions): void;
  rmsNormBackward(options: RmsNormBackwardOptions): void;
  /** The rotation back, in place: the gradient of `rope` (an orthogonal map, so its transpose). */
  ropeBackward(options: RopeOptions): void;
  /** Probabilities are computed again from queries and keys; memory is of tokens, never tokens². */
  attentionBackward(options: AttentionBackwardOptions): void;
  /**
   * y = silu(gate) * up: gate [length] before the activation, up, dy given; dGate and dUp overwritten.
   * dGate may be gate's buffer, dUp up's or dy's.
   */
  siluMultiplyBackward(options: {
    readonly gate: Buffer;
    readonly up: Buffer;
    readonly dy: Buffer;
    readonly dGate: Buffer;
    readonly dUp: Buffer;
    readonly length: number;
  }): void;
  /** sum[c] += Σ_r a[r][c] b[r][c] over [rows, columns]; b absent: Σ_r a[r][c] (a bias's gradient). */
  columnDots(a: Buffer, b: Buffer | undefined, sum: Buffer, rows: number, columns: number): void;
  /**
   * Next-token loss and its gradient, row by row: loss[r] = -log softmax(logits[r])[targets[r]], in nats, and
   * logits[r] overwritten by scale * (softmax(logits[r]) - onehot(targets[r])). A target of -1 is not scored:
   * loss 0, gradient 0.
   */
  crossEntropy(options: {
    readonly logits: Buffer;
    readonly targets: Int32Array;
    readonly loss: Buffer;
    readonly rows: number;
    readonly columns: number;
    readonly scale: number;
  }): void;
  /**
   * Distillation loss and its gradient: loss[r] = KL(softmax(reference[r]) || softmax(logits[r])) in nats, and
   * logits[r] overwritten by scale * (softmax(logits[r]) - softmax(reference[r])); reference is overwritten
   * by its softmax.
   */
  divergence(options: {
    readonly reference: Buffer;
    readonly logits: Buffer;
    readonly loss: Buffer;
    readonly rows: number;
    readonly columns: number;
    readonly scale: number;
  }): void;
  /** dTable[ids[t]] += dy[t] for a [rows, columns] table, in order of t: the gradient of `gather`. */
  scatterAdd(dTable: Buffer, ids: Int32Array, columns: number, dy: Buffer): void;
  /** x *= factor over `length`. */
  scale(x: Buffer, factor: number, length: number): void;
  /** x = 0 over `length`. */
  zero(x: Buffer, length: number): void;
  /** Σ x² over `length`, summed in a fixed order. */
  sumSquares(x: Buffer, length: number): Promise<number>;
  /** AdamW (Loshchilov and Hutter 2019), algorithm 2. */
  adamW(options: AdamWOptions): void;
}
