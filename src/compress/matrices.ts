/**
 * The matrices of a model that are coded, in the order of the data's way: embedding, then each layer's seven,
 * then a head of its own.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { TapSite } from "../transformer/layer.js";
import { EMBEDDING_NAME, HEAD_NAME, type LayerLinear, layerLinears } from "../transformer/weights.js";

export type MatrixKind = "embedding" | "head" | LayerLinear;

export interface MatrixInfo {
  /** Tensor name without ".weight". */
  readonly name: string;
  readonly kind: MatrixKind;
  /** Layer index, or null for embedding and head. */
  readonly layer: number | null;
  readonly rows: number;
  readonly columns: number;
}

/** The sites of a layer in the order they are run, and the matrices that share the input of each. */
export const SITES: readonly { readonly site: TapSite; readonly kinds: readonly LayerLinear[] }[] = [
  { site: "qkv", kinds: ["q", "k", "v"] },
  { site: "o", kinds: ["o"] },
  { site: "gateUp", kinds: ["gate", "up"] },
  { site: "down", kinds: ["down"] },
];

export function codedMatrices(config: ModelConfig): MatrixInfo[] {
  const whole = (name: string, kind: MatrixKind): MatrixInfo => ({
    name,
    kind,
    layer: null,
    rows: config.vocabularySize,
    columns: config.hiddenSize,
  });
  const out = [whole(EMBEDDING_NAME, "embedding")];
  for (let layer = 0; layer < config.layers; layer++) {
    const linears = layerLinears(config, layer);
    for (const { kinds } of SITES) {
      for (const kind of kinds) {
        const { name, outputs, inputs } = linears[kind];
        out.push({ name, kind, layer, rows: outputs, columns: inputs });
      }
    }
  }
  if (!config.tiedEmbeddings) out.push(whole(HEAD_NAME, "head"));
  return out;
}
