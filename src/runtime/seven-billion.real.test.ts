/**
 * A model as large as wasm32 is meant to hold: Llama-2-7B's shapes at 10x, 1.26 GB of weights and 4 GiB of addresses.
 * Its codes are random and one layer's serve all 32, so it says nothing of quality, only that it loads, where its
 * memory goes, and that weights far up in the address space are computed with as exactly as others.
 */
import assert from "node:assert/strict";
import { mkdtemp, rm, statfs } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { parseModelConfig } from "../checkpoint/architectures.js";
import type { CodedMatrix } from "../codec/coded.js";
import { codeForRate } from "../codec/trellis/code.js";
import { defaultTables } from "../codec/trellis/default-tables.js";
import { packScales } from "../codec/trellis/scales.js";
import { trellisTensors } from "../codec/trellis/stored.js";
import { sha256 } from "../container/disk.js";
import { TINY_PROVENANCE } from "../container/tiny-folder.test.util.js";
import { FolderWriter } from "../container/writer.js";
import { compareRows } from "../evaluate/divergence.js";
import { f32ToBytes } from "../tensor/dtype.js";
import { byteLevelFiles } from "../text/fixtures.test.util.js";
import { EMBEDDING_NAME, HEAD_NAME, layerLinears, layerNorms } from "../transformer/weights.js";
import { loadModel } from "./load.js";
import type { LoadedModel } from "./loaded-model.js";

const MB = 1e6;
const SHAPES = {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  vocab_size: 32000,
  hidden_size: 4096,
  intermediate_size: 11008,
  num_hidden_layers: 32,
  num_attention_heads: 32,
  num_key_value_heads: 32,
  max_position_embeddings: 4096,
  tie_word_embeddings: false,
};
/** As Llama 2's: keys and values of 2048 tokens are 1.07 GB in 16 bits. */
const CONTEXT = 2048;
const PROMPT = Int32Array.from([1, 4103, 29, 31999, 512, 7, 20011]);

const { bavail, bsize } = await statfs(tmpdir());
const skip = bavail * bsize > 4e9 ? false : "needs 4 GB of disk";

describe("a model of seven billion weights", { skip }, () => {
  let work: string;
  let path: string;
  let weightBytes: number;
  before(async () => {
    work = await mkdtemp(join(tmpdir(), "pocketllm-large-"));
    path = join(work, "model");
    weightBytes = await writeLarge(path);
  });
  after(() => rm(work, { recursive: true, force: true }));

  test("is what 10x of it would be", () => {
    assert.ok(weightBytes > 1.2e9 && weightBytes < 1.35e9, `${weightBytes} bytes`);
  });

  test("loads and runs within 4 GiB, with the same predictions by either kind of decoding", async (t) => {
    const model = await loadModel(path);
    const { bytes, loadSeconds } = model;
    t.diagnostic(`${weightBytes / MB} MB on disk, ${bytes / MB} MB of weights in memory, ${loadSeconds} s`);
    const fast = await predictions(model);
    t.diagnostic(`${process.memoryUsage.rss() / MB} MB resident after a session of ${CONTEXT} tokens`);
    const exact = await predictions(await loadModel(path, { decoding: "exact" }));
    for (const [i, logits] of fast.entries()) {
      const { divergence } = compareRows(exact[i], logits);
      assert.ok(divergence < 0.002, `KL ${divergence} of prediction ${i}`);
    }
  });

  /** Of a prompt and of two tokens after it, one at a time; closes the model. */
  async function predictions(model: LoadedModel): Promise<Float32Array[]> {
    try {
      // Codes of 3 bits have a nibble each in memory: 4/3 of the file where all are such.
      assert.ok(
        model.bytes < 1.35 * weightBytes + 40 * MB,
        `${model.bytes / MB} MB in memory, ${weightBytes / MB} on disk`,
      );
      const session = model.createSession(CONTEXT);
      const logits = [await session.forward(PROMPT)];
      for (const id of [77, 12345]) logits.push(await session.forward(Int32Array.of(id)));
      for (const row of logits) assert.ok(row.every(Number.isFinite), "logits are finite");
      return logits;
    } finally {
      await model.close();
    }
  }
});

async function writeLarge(out: string): Promise<number> {
  const config = parseModelConfig(SHAPES, "config.json");
  const writer = await FolderWriter.open(out, { resume: false, fingerprint: sha256("seven billion") });
  const order: string[] = [];
  const matrix = async (name: string, outputs: number, inputs: number, of: string) => {
    await writer.putCoded(name, randomMatrix(of, outputs, inputs));
    order.push(name);
  };
  const norm = async (name: string) => {
    await writer.putPlain(name, new Float32Array(config.hiddenSize).fill(1), [config.hiddenSize]);
    order.push(name);
  };
  await matrix(EMBEDDING_NAME, config.vocabularySize, config.hiddenSize, EMBEDDING_NAME);
  for (let index = 0; index < config.layers; index++) {
    const linears = Object.entries(layerLinears(config, index));
    for (const [kind, { name, outputs, inputs }] of linears) await matrix(name, outputs, inputs, kind);
    for (const name of Object.values(layerNorms(config, index))) await norm(name);
  }
  await norm("model.norm.weight");
  await matrix(HEAD_NAME, config.vocabularySize, config.hiddenSize, HEAD_NAME);
  const { weightBytes } = await writer.finish({
    config: SHAPES,
    tokenizerFiles: byteLevelFiles(),
    generationConfig: null,
    provenance: TINY_PROVENANCE,
    order,
  });
  return weightBytes;
}

const made = new Map<string, CodedMatrix>();

/** 1.5 bits a weight, outputs as large as inputs; the same matrix for the same name. */
function randomMatrix(name: string, rows: number, columns: number): CodedMatrix {
  const found = made.get(name);
  if (found) return found;
  const { codeBits, widths } = codeForRate(1.5);
  const shapes = trellisTensors(rows, columns, { codeBits, widths });
  const codes = new Uint8Array(shapes.codes.shape.reduce((a, b) => a * b, 1));
  let state = Number.parseInt(sha256(name).slice(0, 8), 16);
  for (let i = 0; i < codes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    codes[i] = state >>> 24;
  }
  const scales = new Float32Array(rows).fill(1 / Math.sqrt(columns));
  const coded: CodedMatrix = {
    method: "trellis",
    rows,
    columns,
    parameters: {
      codeBits,
      widths: [...widths],
      interleave: 1,
      tailBiting: true,
      rotationSeed: 1,
      maps: "split",
    },
    tensors: new Map([
      ["codes", { ...shapes.codes, data: codes }],
      ["tables", { ...shapes.tables, data: f32ToBytes(defaultTables(codeBits, widths[0]).tables, "F16") }],
      ["scales", { ...shapes.scales, data: packScales(scales) }],
    ]),
  };
  made.set(name, coded);
  return coded;
}
