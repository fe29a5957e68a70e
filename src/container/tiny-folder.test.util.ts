/** A PocketLLM folder of a tiny made-up model, the same bytes every time, for the tests of this room. */
import { adaptableMatrices } from "../adapter/adapter.js";
import type { AdapterBits } from "../adapter/peft-config.js";
import type { CodedMatrix, StoredTensor } from "../codec/coded.js";
import { metaTensors } from "../codec/meta/decode.js";
import type { MetaShape } from "../codec/meta/options.js";
import type { TrellisCode } from "../codec/trellis/code.js";
import { trellisTensors } from "../codec/trellis/stored.js";
import { f32ToBytes } from "../tensor/dtype.js";
import { writeAdapted } from "./adapted.js";
import { sha256 } from "./disk.js";
import { elements } from "./folder.js";
import type { CodedLayer } from "./layer.js";
import type { Provenance } from "./manifest.js";
import { openFolder } from "./reader.js";
import { FolderWriter } from "./writer.js";

/** A llama of 2 layers with an untied head. */
export const TINY_CONFIG: Readonly<Record<string, unknown>> = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: 32,
  hidden_size: 16,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  max_position_embeddings: 64,
  tie_word_embeddings: false,
  bos_token_id: 1,
  eos_token_id: 2,
};

export const TINY_FINGERPRINT = sha256("tiny");

export const TINY_PROVENANCE: Provenance = {
  tool: "pocketllm",
  toolVersion: "0.0.0",
  options: { target: "10x", seed: 0 },
  source: { format: "huggingface", sha256: sha256("source") },
  calibration: [{ name: "wiki.txt", bytes: 3, sha256: sha256("abc") }],
};

/** Name and [rows, columns] of every matrix. */
const MATRICES: readonly (readonly [name: string, rows: number, columns: number])[] = [
  ["model.embed_tokens", 32, 16],
  ...[0, 1].flatMap((layer) =>
    (
      [
        ["self_attn.q_proj", 16, 16],
        ["self_attn.k_proj", 8, 16],
        ["self_attn.v_proj", 8, 16],
        ["self_attn.o_proj", 16, 16],
        ["mlp.gate_proj", 24, 16],
        ["mlp.up_proj", 24, 16],
        ["mlp.down_proj", 16, 24],
      ] as const
    ).map(([part, rows, columns]) => [`model.layers.${layer}.${part}`, rows, columns] as const),
  ),
  ["lm_head", 32, 16],
];

/** A matrix that stays dense, so that every kind of tensor is there. */
const DENSE = "model.layers.1.mlp.down_proj";

const NORMS = [
  "model.layers.0.input_layernorm.weight",
  "model.layers.0.post_attention_layernorm.weight",
  "model.layers.1.input_layernorm.weight",
  "model.layers.1.post_attention_layernorm.weight",
  "model.norm.weight",
];

/** Numbers in [0, 1) that follow from a name. */
function randomFrom(name: string): () => number {
  let state = Number.parseInt(sha256(name).slice(0, 8), 16);
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

export function tinyValues(name: string, length: number): Float32Array {
  const random = randomFrom(name);
  return Float32Array.from({ length }, () => random() - 0.5);
}

/** Random codes and positive numbers: all that a decoder takes, whether or not an encoder would make it. */
export function randomTensors(
  name: string,
  shapes: Readonly<Record<string, Pick<StoredTensor, "dtype" | "shape">>>,
): Map<string, StoredTensor> {
  const tensors = new Map<string, StoredTensor>();
  for (const [suffix, { dtype, shape }] of Object.entries(shapes)) {
    const values = tinyValues(`${name}.${suffix}`, elements(shape)).map((value) => value + 0.75);
    const data =
      dtype === "F16" ? f32ToBytes(values, "F16") : Uint8Array.from(values, (value) => 1024 * value);
    tensors.set(suffix, { dtype, shape, data });
  }
  return tensors;
}

/** A matrix of the method "meta" with random codes, codebook and decoder. */
export function metaMatrix(
  name: string,
  rows: number,
  columns: number,
  change: Partial<MetaShape>,
): CodedMatrix {
  const parameters = {
    d: 8,
    k: 64,
    hidden: 16,
    blocks: 3,
    rln: "rows",
    groupScale: true,
    ...change,
  } as const;
  const tensors = randomTensors(name, metaTensors(rows, columns, parameters));
  return { method: "meta", rows, columns, parameters, tensors };
}

export type TrellisParameters = TrellisCode & { readonly rotationSeed: number };

/** A matrix of the method "trellis" with random codes, tables and scales. */
export function trellisMatrix(
  name: string,
  rows: number,
  columns: number,
  change: Partial<TrellisParameters>,
): CodedMatrix {
  const defaults = { codeBits: 4, widths: [2], interleave: 1, tailBiting: true, rotationSeed: 1 } as const;
  const { maps = "split", ...rest } = { ...defaults, ...change };
  const parameters = maps === "split" ? { ...rest, maps } : rest;
  const tensors = randomTensors(name, trellisTensors(rows, columns, parameters));
  const scales = tensors.get("scales")!;
  // From 0.5 to 2.
  scales.data.set([0x00, 0x38, 0x00, 0x40]);
  return { method: "trellis", rows, columns, parameters, tensors };
}

/** Layer 0 is coded by the method "meta", the rest by "trellis". */
export function syntheticMatrix(name: string, rows: number, columns: number): CodedMatrix {
  return name.startsWith("model.layers.0.")
    ? metaMatrix(name, rows, columns, { d: 4, k: 16, hidden: 2, blocks: 2 })
    : trellisMatrix(name, rows, columns, {});
}

export function tinyLayer(name: string, rows: number, columns: number): CodedLayer {
  if (name !== "lm_head") return syntheticMatrix(name, rows, columns);
  const tiers = [
    { rows: [0, 8] as const, matrix: syntheticMatrix(`${name}.0`, 8, columns) },
    { rows: [8, rows] as const, matrix: syntheticMatrix(`${name}.1`, rows - 8, columns) },
  ];
  return { rows, columns, tiers };
}

export interface TinyOptions {
  readonly out: string;
  readonly resume?: boolean;
  readonly fingerprint?: string;
  readonly shardBytes?: number;
}

/** Writes what is not in the journal yet and finishes, like a run of `compress`. */
export async function writeTinyFolder(options: TinyOptions): Promise<void> {
  const { out, resume = false, fingerprint = TINY_FINGERPRINT, shardBytes } = options;
  const writer = await FolderWriter.open(out, { resume, fingerprint });
  const order: string[] = [];
  for (const [name, rows, columns] of MATRICES) {
    if (name === DENSE) {
      const tensor = `${name}.weight`;
      if (!writer.has(tensor))
        await writer.putPlain(tensor, tinyValues(name, rows * columns), [rows, columns]);
      order.push(tensor);
      continue;
    }
    if (!writer.has(name)) {
      await writer.putNote(`${name}.errors`, { relative: rows / (columns * 1000) });
      await writer.putCoded(name, tinyLayer(name, rows, columns));
    }
    order.push(name);
  }
  for (const name of NORMS) {
    if (!writer.has(name)) await writer.putPlain(name, tinyValues(name, 16), [16]);
    order.push(name);
  }
  const errors = Object.fromEntries(
    MATRICES.filter(([name]) => name !== DENSE).map(([name]) => [
      name,
      writer.getNote(`${name}.errors`) ?? null,
    ]),
  );
  await writer.finish({
    config: TINY_CONFIG,
    tokenizerFiles: { tokenizer: { version: "1.0", model: { type: "BPE" } }, config: { bos_token: "<s>" } },
    generationConfig: { eos_token_id: [2, 3] },
    provenance: { ...TINY_PROVENANCE, measured: { errors } },
    order,
    ...(shardBytes === undefined ? {} : { shardBytes }),
  });
}

/** The folder at `path` with a made-up adapter of rank 2 and scale 1.5 on every matrix of its layers. */
export async function writeTinyAdapted(path: string, out: string, bits: AdapterBits = 16): Promise<void> {
  const folder = await openFolder(path);
  try {
    const rank = 2;
    const pairs = new Map(
      [...adaptableMatrices(folder.config)].map(([name, [outputs, inputs]]) => {
        const a = tinyValues(`${name}.a`, rank * inputs);
        return [name, { rank, a, b: tinyValues(`${name}.b`, outputs * rank) }];
      }),
    );
    const config = { rank, alpha: 3, bits, rankStabilised: false };
    await writeAdapted({ out, folder, path, config, pairs, provenance: folder.manifest.provenance });
  } finally {
    await folder.close();
  }
}
