import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { expectedTensors } from "../checkpoint/tensors.js";
import { roundToF16 } from "../tensor/dtype.js";
import { inspectCheckpoint, inspectFolder } from "./inspect.js";
import { openFolder } from "./reader.js";
import {
  TINY_CONFIG,
  TINY_PROVENANCE,
  tinyLayer,
  tinyValues,
  writeTinyFolder,
} from "./tiny-folder.test.util.js";
import { verifyFolder } from "./verify.js";

let work: string;
let path: string;
before(async () => {
  work = await mkdtemp(join(tmpdir(), "pocketllm-reader-"));
  path = join(work, "tiny");
  await writeTinyFolder({ out: path, shardBytes: 6000 });
});
after(() => rm(work, { recursive: true, force: true }));

const Q = "model.layers.0.self_attn.q_proj";
const DENSE = "model.layers.1.mlp.down_proj";

/** Bytes of all weight files, from the disk. */
async function weightBytes(folder: string): Promise<number> {
  let bytes = 0;
  for (const file of await readdir(folder))
    if (file.endsWith(".safetensors")) bytes += (await stat(join(folder, file))).size;
  return bytes;
}

test("what was written is read back", async () => {
  const folder = await openFolder(path, { verify: true });
  try {
    assert.deepEqual(folder.huggingFaceConfig, TINY_CONFIG);
    assert.equal(folder.config.hiddenSize, 16);
    assert.deepEqual(folder.config.eosTokenIds, [2, 3]);
    assert.deepEqual(await folder.tokenizer(), {
      tokenizer: { version: "1.0", model: { type: "BPE" } },
      config: { bos_token: "<s>" },
    });
    assert.deepEqual(await folder.coded(Q), tinyLayer(Q, 16, 16));
    assert.deepEqual(await folder.coded("lm_head"), tinyLayer("lm_head", 32, 16));
    const values = tinyValues("model.norm.weight", 16).map(roundToF16);
    assert.deepEqual(await folder.plain("model.norm.weight"), values);
    assert.deepEqual(await folder.plain(`${DENSE}.weight`), tinyValues(DENSE, 16 * 24).map(roundToF16));
    await assert.rejects(folder.coded(DENSE), RangeError);
    await assert.rejects(folder.plain(`${Q}.codes`), RangeError);
    const { measured, ...provenance } = folder.manifest.provenance;
    assert.deepEqual(provenance, TINY_PROVENANCE);
    const { errors } = measured as { errors: Record<string, unknown> };
    assert.deepEqual(errors[Q], { relative: 0.001 });
  } finally {
    await folder.close();
  }
});

test("every tensor of the model is there once, coded or plain", async () => {
  const folder = await openFolder(path);
  try {
    const names = [...[...folder.layers.keys()].map((layer) => `${layer}.weight`), ...folder.plainNames];
    assert.deepEqual(names.sort(), [...expectedTensors(folder.config).keys()].sort());
    let parameters = 0;
    for (const shape of expectedTensors(folder.config).values())
      parameters += shape.reduce((product, n) => product * n, 1);
    assert.equal(folder.bytes16, 2 * parameters);
    assert.equal(folder.weightBytes, await weightBytes(path));
  } finally {
    await folder.close();
  }
});

test("inspect: parts add up to the files, and the ratio is 16-bit bytes over file bytes", async () => {
  const inspection = await inspectFolder(path);
  assert.equal(inspection.weightBytes, await weightBytes(path));
  assert.equal(inspection.ratio, (2 * inspection.parameters) / inspection.weightBytes);
  const sum = (key: "weights" | "bytes") => inspection.parts.reduce((total, part) => total + part[key], 0);
  assert.equal(sum("bytes"), inspection.weightBytes);
  assert.equal(sum("weights"), inspection.parameters);
  const part = (name: string) => inspection.parts.find((entry) => entry.name === name)!;
  assert.equal(part("embedding and head").weights, 2 * 32 * 16);
  assert.equal(part("norms and biases").bytes, 5 * 32);
  assert.equal(part("norms and biases").bitsPerWeight, 16);
  const head = inspection.tensors.find(({ name }) => name === "lm_head")!;
  assert.deepEqual(
    head.tiers?.map(({ rows }) => rows),
    [
      [0, 8],
      [8, 32],
    ],
  );
  const dense = inspection.tensors.find(({ name }) => name === `${DENSE}.weight`)!;
  assert.deepEqual([dense.method, dense.bitsPerWeight], ["F16", 16]);
  assert.deepEqual(inspection.files.map(({ name }) => name).sort(), (await readdir(path)).sort());
});

test("inspect: a checkpoint's parts are its tensors", async () => {
  const generator = new URL("../../test/hostile/tiny-llama.mjs", import.meta.url);
  const { makeTinyLlama } = (await import(generator.href)) as {
    makeTinyLlama(dir: string, options: Record<string, unknown>): Promise<unknown>;
  };
  const folder = join(work, "checkpoint");
  await makeTinyLlama(folder, {
    layers: 1,
    hidden: 32,
    intermediate: 48,
    heads: 4,
    kvHeads: 2,
    dtype: "F32",
  });
  const inspection = await inspectCheckpoint(folder);
  assert.equal(inspection.format, "huggingface");
  assert.equal(inspection.bitsPerWeight, 32);
  assert.equal(inspection.ratio, 0.5);
  const attention = inspection.parts.find(({ name }) => name === "attention")!;
  assert.equal(attention.weights, 2 * 32 * 32 + 2 * 16 * 32);
});

test("verify reports all that is wrong and what is merely beside the model", async () => {
  const folder = join(work, "verified");
  await writeTinyFolder({ out: folder, shardBytes: 6000 });
  await writeFile(join(folder, "README.md"), "a model");
  const sound = await verifyFolder(folder);
  assert.deepEqual(sound.problems, []);
  assert.deepEqual(sound.unlisted, ["README.md"]);
  assert.deepEqual([...sound.files].sort(), (await readdir(folder)).filter((f) => f !== "README.md").sort());

  const shards = (await readdir(folder)).filter((file) => file.endsWith(".safetensors"));
  const [first, second] = shards;
  const bytes = await readFile(join(folder, first));
  bytes[bytes.length - 1] ^= 1;
  await writeFile(join(folder, first), bytes);
  await rm(join(folder, second));
  await writeFile(join(folder, "generation_config.json"), JSON.stringify({ eos_token_id: [2, 4] }, null, 2));
  await writeFile(join(folder, "extra.safetensors"), "");
  const { problems, files, tensors } = await verifyFolder(folder);
  const patterns = [
    new RegExp(`tensor ".*" in ${first} does not match its SHA-256`),
    new RegExp(`${second} is missing`),
    /generation_config\.json: (has \d+ bytes where|does not match)/,
    /extra\.safetensors is a weight file that pocketllm\.json does not list/,
  ];
  assert.equal(problems.length, patterns.length, problems.join("\n"));
  for (const pattern of patterns)
    assert.ok(
      problems.some((problem) => pattern.test(problem)),
      String(pattern),
    );
  assert.ok(!files.includes(first) && files.includes(shards[2]));
  assert.ok(tensors.length > 0 && tensors.length < sound.tensors.length - 1);
});
