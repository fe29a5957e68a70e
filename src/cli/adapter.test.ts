/** Adapters as a user trains and uses them: `tune` without --distill, and --adapter. */
import assert from "node:assert/strict";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import {
  assertRefused,
  errorLines,
  folderHashes,
  makeTinyModel,
  run,
  start,
  succeed,
  words,
} from "./run.test.util.js";

const work = mkdtempSync(join(tmpdir(), "pocketllm-adapters-"));
const model = join(work, "model");
const folder = join(work, "coded");
const meta = join(work, "meta");
const text = join(work, "text.txt");
const rows = join(work, "rows.json");

before(async () => {
  await makeTinyModel(model);
  writeFileSync(text, Array.from({ length: 300 }, (_, i) => `${words(i)} ${i}.`).join(" "));
  const entries = Array.from({ length: 60 }, (_, i) => ({
    instruction: words(i),
    input: "",
    output: `${words(i)}!`,
  }));
  writeFileSync(rows, JSON.stringify(entries));
  for (const [out, method, target] of [
    [folder, "trellis", "5x"],
    [meta, "meta", "3x"],
  ]) {
    const args = ["compress", model, "--out", out, "--method", method, "--target", target, "--data-free"];
    await succeed(...args);
  }
});
after(() => rmSync(work, { recursive: true, force: true }));

const adapting = (out: string, ...more: string[]) => [
  ...[
    "tune",
    more.includes("meta") ? meta : folder,
    "--data",
    more.includes("rows") ? rows : text,
    "--out",
    out,
  ],
  ...["--lora-rank", "4", "--lora-alpha", "8", "--context", "64", "--batch-size", "4", "--epochs", "1"],
  ...(more.includes("--lr") ? [] : ["--lr", "0.01"]),
  ...more.filter((word) => word !== "meta" && word !== "rows"),
];

async function json(...args: string[]): Promise<Record<string, never>> {
  const { stdout } = await succeed(...args, "--json");
  return JSON.parse(stdout);
}

const perplexity = async (...args: string[]) => {
  const evaluated = await json("eval", ...args, "--text", text, "--context", "64", "--windows", "20");
  return evaluated["perplexity"] as number;
};

/** When the run to `out` has kept something of this name, or is over. */
async function kept(out: string, name: string): Promise<void> {
  while (!existsSync(join(`${out}.tuning`, name)) && !existsSync(out)) await sleep(5);
}

describe("tune trains an adapter", () => {
  const whole = join(work, "whole");

  test("that helps, lies beside the model in PEFT's form and is counted", async () => {
    const log = join(work, "log.jsonl");
    const report = await json(...adapting(whole, "--log", log));
    assert.ok(report["heldOutAfter"] < report["heldOutBefore"], JSON.stringify(report));
    assert.ok(Math.abs(report["heldOutStored"] - report["heldOutAfter"]) < 0.01);
    const lines = readFileSync(log, "utf8").trimEnd().split("\n");
    assert.equal(lines.length, report["steps"]);
    await succeed("verify", whole);

    const adapterBytes = statSync(join(whole, "adapter_model.safetensors")).size;
    const before = await json("inspect", folder);
    const after = await json("inspect", whole);
    assert.equal(after["weightBytes"], before["weightBytes"] + adapterBytes);
    assert.equal(after["parameters"], before["parameters"]);
    assert.equal(after["ratio"], after["bytes16"] / after["weightBytes"]);
    assert.equal(report["ratio"], after["ratio"]);
    assert.equal(report["adapterBytes"], adapterBytes);
    const part = (after["parts"] as { name: string; weights: number }[]).find(
      ({ name }) => name === "adapter",
    );
    // Rank 4 on q, k, v, o, gate, up, down of 3 layers of 64 and 160, keys and values of 32.
    assert.equal(part?.weights, 3 * 4 * (128 + 96 + 96 + 128 + 3 * 224));

    const config = JSON.parse(readFileSync(join(whole, "adapter_config.json"), "utf8"));
    assert.equal(config.peft_type, "LORA");
    assert.deepEqual([config.r, config.lora_alpha], [4, 8]);
    const names = readFileSync(join(whole, "adapter_model.safetensors"), "latin1");
    assert.ok(names.includes('"base_model.model.model.layers.2.mlp.down_proj.lora_B.weight"'));

    // The rest of the folder is what it was.
    const hashes = folderHashes(whole);
    for (const [file, hash] of Object.entries(folderHashes(folder)))
      if (file !== "pocketllm.json") assert.equal(hashes[file], hash, file);
  });

  test("that eval uses, by the folder or by --adapter on the model that it is for", async () => {
    const own = await perplexity(whole);
    assert.ok(own < (await perplexity(folder)));
    assert.equal(await perplexity(folder, "--adapter", whole), own);
    // On top of its own it counts twice.
    assert.notEqual(await perplexity(whole, "--adapter", whole), own);
    const prompt = ["--prompt", "the lamp", "--max-tokens", "12"];
    const generated = await json("generate", folder, "--adapter", whole, ...prompt);
    assert.equal(generated["text"], (await json("generate", whole, ...prompt))["text"]);
  });

  test("that compress merges into the original first", async () => {
    const unmerged = await perplexity(model, "--adapter", whole);
    const plain = await perplexity(model);
    const merged = join(work, "merged");
    const args = ["--out", merged, "--target", "3.7x", "--data-free"];
    await json("compress", model, "--adapter", whole, ...args);
    const provenance = JSON.parse(readFileSync(join(merged, "pocketllm.json"), "utf8")).provenance;
    assert.match(provenance.options.adapter.sha256, /^[0-9a-f]{64}$/);
    const distance = Math.abs((await perplexity(merged)) - unmerged);
    assert.ok(distance < 0.3 * Math.abs(plain - unmerged), `${distance} of ${plain} and ${unmerged}`);
    const resumed = await run("compress", model, ...args);
    assert.equal(resumed.code, 2, resumed.stderr);
  });

  test("the number of workers changes nothing; killed and resumed, the bytes are the same", async () => {
    const single = join(work, "single");
    await json(...adapting(single, "--workers", "1"));
    assert.deepEqual(folderHashes(single), folderHashes(whole));
    for (const delay of [0, 250]) {
      const out = join(work, `killed-${delay}`);
      const { child, finished } = start(adapting(out));
      await kept(out, "state.safetensors");
      await sleep(delay);
      child.kill("SIGKILL");
      const { signal } = await finished;
      if (signal === "SIGKILL" && !existsSync(out)) {
        const fresh = await run(...adapting(out));
        assert.match(fresh.stderr, /unfinished run: run with --resume/);
        const other = await run(...adapting(out, "--resume", "--adapter-bits", "8"));
        assert.equal(errorLines(other).length, 1, other.stderr);
        await json(...adapting(out, "--resume"));
      }
      assert.deepEqual(folderHashes(out), folderHashes(whole));
      assert.ok(!existsSync(`${out}.partial`));
    }
  });

  test("in 8 and 4 bits, smaller and nearly as good", async () => {
    const before = await perplexity(folder);
    const full = await perplexity(whole);
    let bytes = statSync(join(whole, "adapter_model.safetensors")).size;
    for (const bits of ["8", "4"]) {
      const out = join(work, `bits-${bits}`);
      const report = await json(...adapting(out, "--adapter-bits", bits));
      const smaller = statSync(join(out, "adapter_model.safetensors")).size;
      assert.ok(smaller < bytes);
      assert.equal(report["adapterBytes"], smaller);
      bytes = smaller;
      assert.ok((await perplexity(out)) - full < 0.2 * (before - full), bits);
      await succeed("verify", out);
    }
  });

  test("on instructions, of which only the answers are learned, for a model coded by meta", async () => {
    const out = join(work, "answers");
    const report = await json(...adapting(out, "rows", "meta", "--epochs", "3", "--context", "256"));
    assert.ok(report["heldOutAfter"] < report["heldOutBefore"], JSON.stringify(report));
    await succeed("verify", out);
    assert.ok(report["ratio"] > 0);
  });

  test("towards the original with --distill", async () => {
    const out = join(work, "distilled");
    const args = ["tune", folder, "--distill", model, "--data", text, "--out", out, "--context", "64"];
    const more = ["--batch-size", "2", "--lora-rank", "4", "--lr", "0.001", "--tokens", "2560"];
    const report = await json(...args, ...more);
    assert.ok(report["heldOutAfter"] < report["heldOutBefore"], JSON.stringify(report));
    const divergence = async (of: string) => {
      const options = ["--reference", model, "--text", text, "--context", "64", "--windows", "20"];
      return (await json("eval", of, ...options))["divergence"]["mean"] as number;
    };
    assert.ok((await divergence(out)) < (await divergence(folder)));
  });

  test("a damaged or missing adapter is found", async () => {
    const damaged = join(work, "damaged");
    cpSync(whole, damaged, { recursive: true });
    const weights = join(damaged, "adapter_model.safetensors");
    const bytes = readFileSync(weights);
    bytes[bytes.length - 5] ^= 1;
    writeFileSync(weights, bytes);
    assert.match((await run("verify", damaged)).stderr, /adapter_model\.safetensors/);
    assert.match((await run("eval", damaged, "--text", text)).stderr, /does not match its SHA-256/);
    rmSync(weights);
    assert.match((await run("inspect", damaged)).stderr, /adapter_model\.safetensors is missing/);
  });
});

describe("text that the original writes itself", () => {
  const written = (out: string, ...more: string[]) => [
    ...["tune", folder, "--distill", model, "--self-data", "3072", "--tokens", "640", "--context", "64"],
    ...["--out", out, ...more],
  ];

  test("is learned from; killed while it is written and after, the bytes are the same", async () => {
    const whole = join(work, "self");
    const report = await json(...written(whole));
    assert.ok(report["heldOutAfter"] < report["heldOutBefore"], JSON.stringify(report));
    for (const moment of ["self-data-0.json", "state.safetensors"]) {
      const out = join(work, `self-${moment}`);
      const { child, finished } = start(written(out));
      await kept(out, moment);
      child.kill("SIGKILL");
      await finished;
      // What the disk damaged is written again, the same.
      const first = join(`${out}.tuning`, "self-data-0.json");
      writeFileSync(first, readFileSync(first, "utf8").replace("[[", "[[1"));
      await json(...written(out, "--resume", "--workers", "1"));
      assert.deepEqual(folderHashes(out), folderHashes(whole));
      assert.ok(!existsSync(`${out}.tuning`));
    }
  });

  for (const [what, message, more] of [
    ["no original", /--self-data is written by the original/, ["tune", "--self-data", "1000"]],
    ["text besides", /not both/, ["tune", "--distill", "--data", "--self-data", "1000"]],
    ["too little of it", /self-data must be/, ["tune", "--distill", "--self-data", "100"]],
  ] as const)
    test(`refuses ${what}`, async () => {
      const values: Record<string, string[]> = { tune: [folder], "--distill": [model], "--data": [text] };
      const args = more.flatMap((word) => [word, ...(values[word] ?? [])]);
      const refused = await run(...args, "--out", join(work, "x"), "--context", "64");
      assert.equal(refused.code, 2, refused.stderr);
      assert.match(refused.stderr, message);
    });
});

describe("adapters: refused", () => {
  const file = (name: string, content: string) => {
    const path = join(work, name);
    writeFileSync(path, content);
    return path;
  };
  const refusals: readonly [what: string, message: RegExp, args: () => string[] | Promise<string[]>][] = [
    [
      "a rank of 0",
      /rank must be a whole number from 1 to 32/,
      () => adapting(join(work, "x"), "--lora-rank", "0"),
    ],
    ["too large a rank", /rank must be .* not 33/, () => adapting(join(work, "x"), "--lora-rank", "33")],
    ["an alpha of 0", /alpha/, () => adapting(join(work, "x"), "--lora-alpha", "0")],
    ["3 bits", /adapter-bits/, () => adapting(join(work, "x"), "--adapter-bits", "3")],
    ["no text", /give --data/, () => ["tune", folder, "--out", join(work, "x")]],
    ["an empty file", /is empty/, () => adapting(join(work, "x"), "--data", file("empty.json", ""))],
    [
      "rows of another kind",
      /wrong\.json entry 1/,
      () => adapting(join(work, "x"), "--data", file("wrong.json", '[{"title": "x"}]')),
    ],
    [
      "numbers that are none in data",
      /not valid JSON/,
      () => adapting(join(work, "x"), "--data", file("nan.json", '[{"instruction": "a", "output": NaN}]')),
    ],
    [
      "tokens without an original",
      /--tokens is for --distill/,
      () => adapting(join(work, "x"), "--tokens", "1000"),
    ],
    [
      "a scale without an adapter",
      /give --lora-rank/,
      () => [
        "tune",
        folder,
        "--distill",
        model,
        "--data",
        text,
        "--lora-alpha",
        "8",
        "--out",
        join(work, "x"),
      ],
    ],
    [
      "a learning rate that diverges",
      /held-out loss has risen .* learning rate 50 is too high: try 5/,
      async () => {
        // A model of sense: the loss of random weights cannot rise.
        const stories = join(work, "stories");
        const source = fileURLToPath(new URL("../../models/pocket-stories", import.meta.url));
        await succeed("compress", source, "--out", stories, "--target", "6x", "--data-free");
        const examples = fileURLToPath(new URL("../../examples/calibration-stories.txt", import.meta.url));
        const own = file("stories.txt", readFileSync(examples, "utf8").slice(0, 20_000));
        const args = adapting(join(work, "x"), "--lr", "50", "--batch-size", "1");
        return args.map((word) => (word === folder ? stories : word === text ? own : word));
      },
    ],
    [
      "a folder with an adapter",
      /has an adapter already/,
      () => ["tune", join(work, "whole"), "--data", text, "--out", join(work, "x")],
    ],
    [
      "what is no PocketLLM folder",
      /no PocketLLM folder/,
      () => ["tune", model, "--data", text, "--out", join(work, "x")],
    ],
    [
      "an adapter that is none",
      /has no adapter_config\.json/,
      () => ["eval", model, "--adapter", model, "--text", text],
    ],
    [
      "another model's adapter",
      /another model's|no part of/,
      async () => {
        await makeTinyModel(join(work, "other"), { layers: 2, hidden: 32 });
        return ["eval", join(work, "other"), "--adapter", join(work, "whole"), "--text", text];
      },
    ],
    [
      "to merge before the recipe best",
      /recipe balanced/,
      () => [
        "compress",
        model,
        "--adapter",
        join(work, "whole"),
        "--recipe",
        "best",
        "--calibration",
        text,
        "--out",
        join(work, "x"),
      ],
    ],
  ];
  for (const [what, message, args] of refusals)
    test(what, async () => {
      const finished = await run(...(await args()));
      rmSync(join(work, "x.tuning"), { recursive: true, force: true });
      assertRefused(finished, message, join(work, "x"));
    });
});
