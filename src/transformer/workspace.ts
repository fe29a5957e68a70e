/** Activations of one decoder layer, allocated once and reused by every layer and every chunk of tokens. */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Buffer } from "../compute/backend.js";
import type { BufferGroup } from "./buffers.js";

export interface Workspace {
  /** Most tokens that one `forwardLayer` may be given: T below. */
  readonly maxTokens: number;
  /** [T, hiddenSize]: the input of q, k, v, and later of gate and up. */
  readonly normed: Buffer;
  /** [T, heads * headSize] */
  readonly query: Buffer;
  /** [T, kvHeads * headSize] */
  readonly key: Buffer;
  readonly value: Buffer;
  /** [T, heads * headSize]: the input of o. */
  readonly attended: Buffer;
  /** [T, hiddenSize]: the output of o, and later of down. */
  readonly projected: Buffer;
  /** [T, intermediateSize]: silu(gate) * up, the input of down. */
  readonly gate: Buffer;
  readonly up: Buffer;
}

/** A workspace for `maxTokens` tokens, its buffers in `group`. */
export function allocateWorkspace(group: BufferGroup, config: ModelConfig, maxTokens: number): Workspace {
  const rows = (columns: number) => group.allocate(maxTokens * columns);
  const queries = config.heads * config.headSize;
  const keys = config.kvHeads * config.headSize;
  return {
    maxTokens,
    normed: rows(config.hiddenSize),
    query: rows(queries),
    key: rows(keys),
    value: rows(keys),
    attended: rows(queries),
    projected: rows(config.hiddenSize),
    gate: rows(config.intermediateSize),
    up: rows(config.intermediateSize),
  };
}
