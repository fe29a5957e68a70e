/** Adapter files: what is read of PEFT's form, what is refused by name, and the packed forms. */
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, describe, test } from "node:test";
import { writeSafetensors } from "../checkpoint/safetensors-write.js";
import type { LowRankPair } from "../compute/adapted-linear.js";
import { InputError } from "../errors.js";
import { Random } from "../random.js";
import { roundToF16 } from "../tensor/dtype.js";
import { tinyConfig } from "../transformer/tiny-model.test.util.js";
import { adaptableMatrices, mergePair } from "./adapter.js";
import { openAdapter } from "./open.js";
import { packedColumns, packMatrix, unpackMatrix } from "./packed.js";
import { ADAPTER_CONFIG, ADAPTER_WEIGHTS, type AdapterBits, writeAdapterConfig } from "./peft-config.js";
import { type AdapterTensor, adapterTensors } from "./stored.js";

const work = mkdtempSync(join(tmpdir(), "pocketllm-adapter-"));
after(() => rmSync(work, { recursive: true, force: true }));

const model = tinyConfig();
const Q = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

function randomPairs(rank = 4): Map<string, LowRankPair> {
  const random = new Random(5);
  const numbers = (length: number) => Float32Array.from({ length }, () => random.normal());
  const pairs = [...adaptableMatrices(model)].map(
    ([name, [outputs, inputs]]) =>
      [name, { rank, a: numbers(rank * inputs), b: numbers(outputs * rank) }] as const,
  );
  return new Map(pairs);
}

interface Changes {
  readonly bits?: AdapterBits;
  readonly json?: Record<string, unknown>;
  readonly tensors?: (tensors: AdapterTensor[]) => AdapterTensor[];
}

let folders = 0;
async function written({ bits = 16, json = {}, tensors = (all) => all }: Changes = {}): Promise<string> {
  const folder = join(work, String(folders++));
  await mkdir(folder);
  const config = writeAdapterConfig({ rank: 4, alpha: 8, rankStabilised: false, bits });
  writeFileSync(join(folder, ADAPTER_CONFIG), JSON.stringify({ ...config, ...json }));
  await writeSafetensors({
    path: join(folder, ADAPTER_WEIGHTS),
    tensors: tensors(adapterTensors(randomPairs(), bits)).map(({ data, ...entry }) => ({
      ...entry,
      data: () => data,
    })),
  });
  return folder;
}

test("what is written is read: numbers in F16, names as PEFT has them", async () => {
  const folder = await written();
  const { pairs, scale, rank } = await openAdapter(folder, model);
  assert.equal(rank, 4);
  assert.equal(scale, 2);
  const expected = randomPairs();
  assert.deepEqual([...pairs.keys()], [...expected.keys()]);
  for (const [name, { a, b }] of expected) {
    assert.deepEqual(pairs.get(name)!.a, a.map(roundToF16));
    assert.deepEqual(pairs.get(name)!.b, b.map(roundToF16));
  }
  assert.ok(readFileSync(join(folder, ADAPTER_WEIGHTS), "latin1").includes(`"${Q}"`));
});

test("an adapter of some matrices only, as PEFT trains by default", async () => {
  const folder = await written({
    json: { target_modules: ["q_proj", "v_proj"] },
    tensors: (all) => all.filter(({ name }) => /\.[qv]_proj\./.test(name)),
  });
  assert.equal((await openAdapter(folder, model)).pairs.size, 2 * model.layers);
});

test("rank-stabilised adapters are scaled by the root of the rank", async () => {
  assert.equal((await openAdapter(await written({ json: { use_rslora: true } }), model)).scale, 4);
});

describe("is refused in one line", () => {
  const one = (change: (tensor: AdapterTensor) => AdapterTensor) => (all: AdapterTensor[]) =>
    all.map((tensor) => (tensor.name === Q ? change(tensor) : tensor));
  const refused: readonly [what: string, message: RegExp, changes: Changes][] = [
    ["another kind of adapter", /peft_type is "IA3"/, { json: { peft_type: "IA3" } }],
    ["DoRA", /option "use_dora" is "true"/, { json: { use_dora: true } }],
    ["a rank for each module", /"rank_pattern"/, { json: { rank_pattern: { q_proj: 2 } } }],
    ["a scale for each module", /"alpha_pattern"/, { json: { alpha_pattern: { q_proj: 2 } } }],
    ["trained biases", /"bias" is/, { json: { bias: "all" } }],
    ["other modules saved whole", /"modules_to_save"/, { json: { modules_to_save: ["lm_head"] } }],
    ["a start that changes the base", /"init_lora_weights"/, { json: { init_lora_weights: "pissa" } }],
    ["an option nobody knows yet", /"use_magic"/, { json: { use_magic: true } }],
    [
      "a module without adapters",
      /target_modules names "lm_head"/,
      { json: { target_modules: ["lm_head"] } },
    ],
    ["a rank of 0", /r must be/, { json: { r: 0 } }],
    ["a rank that is not the tensors'", /shape \[4, 32\] where .* ask for \[8, 32\]/, { json: { r: 8 } }],
    ["no scale", /lora_alpha/, { json: { lora_alpha: "8" } }],
    ["a missing half", /has no tensor .*lora_A/, { tensors: (all) => all.filter(({ name }) => name !== Q) }],
    [
      "another model's names",
      /no part of a LoRA adapter/,
      { tensors: (all) => all.map((t) => ({ ...t, name: t.name.replace("s.0.", "s.7.") })) },
    ],
    ["another model's shapes", /another model's/, { tensors: one((t) => ({ ...t, shape: [8, 16] })) }],
    ["whole numbers", /holds I16/, { tensors: one((t) => ({ ...t, dtype: "I16" })) }],
    [
      "numbers that are none",
      /not finite/,
      { tensors: one((t) => ({ ...t, data: t.data.slice().fill(255) })) },
    ],
    ["nothing", /has no tensors/, { tensors: () => [] }],
    ["bits that do not exist", /bits must be 8 or 4/, { bits: 8, json: { bits: 5 } }],
    ["bits that are not the tensors'", /shape/, { bits: 8, json: { bits: 4 } }],
  ];
  for (const [what, message, changes] of refused)
    test(what, async () => {
      const folder = await written(changes);
      await assert.rejects(openAdapter(folder, model), (error: Error) => {
        assert.ok(error instanceof InputError, error.stack);
        assert.match(error.message, message);
        assert.ok(error.message.startsWith(folder) && !error.message.includes("\n"), error.message);
        return true;
      });
    });

  test("a folder without one, a damaged file", async () => {
    await assert.rejects(openAdapter(work, model), /has no adapter_config\.json/);
    const folder = await written();
    writeFileSync(join(folder, ADAPTER_WEIGHTS), readFileSync(join(folder, ADAPTER_WEIGHTS)).subarray(0, -9));
    await assert.rejects(openAdapter(folder, model), InputError);
    writeFileSync(join(folder, ADAPTER_CONFIG), "{");
    await assert.rejects(openAdapter(folder, model), /not valid JSON/);
  });
});

describe("packed adapters", () => {
  for (const [bits, error] of [
    [8, 0.01],
    [4, 0.12],
  ] as const) {
    test(`${bits} bits: near the numbers, small, rows of zeros stay`, () => {
      const random = new Random(1);
      const columns = 33;
      const values = Float32Array.from({ length: 20 * columns }, (_, i) =>
        i < columns ? 0 : random.normal() * 10 ** Math.floor(i / columns / 4 - 3),
      );
      const packed = packMatrix(values, columns, bits);
      assert.equal(packed.codes.length, 20 * packedColumns(columns, bits));
      const back = unpackMatrix(packed, columns, bits);
      for (let row = 0; row < 20; row++) {
        const part = (of: Float32Array) => of.subarray(row * columns, (row + 1) * columns);
        const size = Math.hypot(...part(values));
        const difference = Math.hypot(...part(values).map((x, i) => x - part(back)[i]));
        assert.ok(difference <= error * size, `row ${row}: ${difference} of ${size}`);
      }
    });
    test(`${bits} bits on disk: read as what was packed, and not taken for PEFT's`, async () => {
      const folder = await written({ bits });
      const { pairs } = await openAdapter(folder, model);
      for (const [name, { a, b, rank }] of randomPairs()) {
        const inputs = a.length / rank;
        assert.deepEqual(pairs.get(name)!.a, unpackMatrix(packMatrix(a, inputs, bits), inputs, bits));
        assert.deepEqual(pairs.get(name)!.b, unpackMatrix(packMatrix(b, rank, bits), rank, bits));
      }
      assert.notEqual(JSON.parse(readFileSync(join(folder, ADAPTER_CONFIG), "utf8")).peft_type, "LORA");
    });
  }
});

test("merging adds scale B A", () => {
  // W = [[1, 2, 3], [4, 5, 6]], B = [[1], [-2]], A = [[10, 0, 1]], scale .5
  const weight = Float32Array.of(1, 2, 3, 4, 5, 6);
  mergePair(weight, { rank: 1, a: Float32Array.of(10, 0, 1), b: Float32Array.of(1, -2) }, 0.5);
  assert.deepEqual([...weight], [6, 2, 3.5, -6, 5, 5]);
});
