import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { CorruptFileError, InputError, UsageError } from "../errors.js";
import { exists } from "./disk.js";
import {
  syntheticMatrix,
  TINY_CONFIG,
  TINY_FINGERPRINT,
  TINY_PROVENANCE,
  tinyLayer,
  writeTinyFolder,
} from "./tiny-folder.test.util.js";
import { FolderWriter } from "./writer.js";

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "pocketllm-writer-"));
});
after(() => rm(folder, { recursive: true, force: true }));

async function contents(path: string): Promise<Map<string, string>> {
  const names = (await readdir(path)).sort();
  return new Map(
    await Promise.all(names.map(async (name) => [name, await readFile(join(path, name), "latin1")] as const)),
  );
}

const open = (out: string, resume = false, fingerprint = TINY_FINGERPRINT) =>
  FolderWriter.open(out, { resume, fingerprint });

test("a folder has the files of a Hugging Face model and a manifest, and the same bytes each time", async () => {
  const [one, two] = [join(folder, "one"), join(folder, "two")];
  await writeTinyFolder({ out: one });
  await writeTinyFolder({ out: two });
  const files = await contents(one);
  assert.deepEqual(
    [...files.keys()],
    [
      "config.json",
      "generation_config.json",
      "model.safetensors",
      "pocketllm.json",
      "tokenizer.json",
      "tokenizer_config.json",
    ],
  );
  assert.deepEqual(files, await contents(two));
  assert.equal(await exists(`${one}.partial`), false);
  const config = JSON.parse(files.get("config.json")!);
  assert.deepEqual(config, {
    ...TINY_CONFIG,
    quantization_config: { quant_method: "pocketllm", version: 1, manifest: "pocketllm.json" },
  });
});

test("shards are no longer than asked and come with the usual index", async () => {
  const out = join(folder, "shards");
  await writeTinyFolder({ out, shardBytes: 2000 });
  const files = await contents(out);
  const shards = [...files.keys()].filter((name) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(name));
  assert.ok(shards.length > 3);
  for (const shard of shards) assert.ok(files.get(shard)!.length <= 2000, shard);
  const { weight_map: map } = JSON.parse(files.get("model.safetensors.index.json")!);
  assert.deepEqual([...new Set(Object.values(map))].sort(), shards);
});

test("killed at any moment and resumed, the folder has the same bytes", async () => {
  const program = fileURLToPath(new URL("./write-tiny.test.util.js", import.meta.url));
  const reference = join(folder, "reference");
  await writeTinyFolder({ out: reference, shardBytes: 3000 });
  const expected = await contents(reference);

  /** Runs the program and kills it `delay` ms after it has begun. Gives the time it ran, or null when killed. */
  const run = (out: string, delay: number) =>
    new Promise<number | null>((resolve, reject) => {
      const child = spawn(process.execPath, [program, out, "3000"], { stdio: ["ignore", "pipe", "pipe"] });
      let errors = "";
      let began = 0;
      let timer: NodeJS.Timeout | undefined;
      child.stderr.on("data", (data) => (errors += data));
      child.stdout.once("data", () => {
        began = performance.now();
        timer = setTimeout(() => child.kill("SIGKILL"), delay);
      });
      child.on("close", (code, signal) => {
        clearTimeout(timer);
        if (signal === "SIGKILL") resolve(null);
        else if (code === 0) resolve(performance.now() - began);
        else reject(new Error(errors));
      });
    });

  /** Shortest time of a whole run, so that delays fall into all phases of it, from put to rename. */
  let whole = (await run(join(folder, "timed"), 60_000)) ?? assert.fail("killed after a minute");
  // Node takes most of a round to start: more kills are for whoever changes the writer.
  const wanted = Number(process.env["POCKETLLM_KILLS"] ?? 16);
  for (let round = 0, kills = 0; kills < wanted; round++) {
    const out = join(folder, `killed-${round}`);
    for (let attempt = 0; !(await exists(out)); attempt++) {
      const time = await run(out, attempt < 3 ? Math.random() * whole : 60_000);
      if (time === null) kills++;
      else if (attempt === 0) whole = Math.min(whole, time);
    }
    assert.deepEqual(await contents(out), expected, `round ${round}`);
  }
});

test("journal entries that are cut short or changed are made again", async () => {
  const out = join(folder, "damaged");
  const writer = await open(out);
  const names = ["a", "b", "c", "d"];
  for (const name of names) await writer.putCoded(name, syntheticMatrix(name, 8, 16));
  const journal = join(`${out}.partial`, "journal");
  await truncate(join(journal, "a.coded"), 100);
  const bytes = await readFile(join(journal, "b.coded"));
  bytes[bytes.length - 1] ^= 1;
  await writeFile(join(journal, "b.coded"), bytes);
  const header = await readFile(join(journal, "c.coded"));
  header[80] ^= 1;
  await writeFile(join(journal, "c.coded"), header);
  await writeFile(join(journal, "e.coded"), "");
  await writeFile(join(journal, "f.coded.partial"), "half of an ent");
  const resumed = await open(out, true);
  assert.deepEqual(
    [...names, "e", "f"].filter((name) => resumed.has(name)),
    ["d"],
  );
  assert.deepEqual((await readdir(journal)).sort(), ["d.coded", "journal.json"]);
});

test("an entry damaged while the run goes on is noticed when it is used", async () => {
  const out = join(folder, "noticed");
  const writer = await open(out);
  await writer.putCoded("a", syntheticMatrix("a", 8, 16));
  const path = join(`${out}.partial`, "journal", "a.coded");
  const bytes = await readFile(path);
  bytes[bytes.length - 1] ^= 1;
  await writeFile(path, bytes);
  await assert.rejects(writer.getCoded("a"), CorruptFileError);
  const finish = {
    config: TINY_CONFIG,
    tokenizerFiles: null,
    generationConfig: null,
    provenance: TINY_PROVENANCE,
  };
  await assert.rejects(writer.finish({ ...finish, order: ["a"] }), /a\.coded was damaged on disk.*--resume/);
  assert.equal(await exists(out), false);
});

test("coded layers, tiers and notes come back as they were put", async () => {
  const out = join(folder, "back");
  const writer = await open(out);
  const layer = tinyLayer("lm_head", 32, 16);
  await writer.putCoded("lm_head", layer);
  await writer.putNote("state", { errors: [0.5, 1e-9], done: true });
  const resumed = await open(out, true);
  assert.deepEqual(await resumed.getCoded("lm_head"), layer);
  assert.deepEqual(resumed.getNote("state"), { errors: [0.5, 1e-9], done: true });
  assert.equal(resumed.getNote("other"), undefined);
});

test("existing folders and foreign journals are refused with what to do", async () => {
  const out = join(folder, "exists");
  await mkdir(out);
  await assert.rejects(
    open(out),
    new UsageError(`${out} exists already: choose another --out, or delete it`),
  );
  await assert.rejects(open(out, true), /exists exists already, so there is nothing to resume/);
  const begun = join(folder, "begun");
  await open(begun);
  await assert.rejects(open(`${begun}/`), (error: Error) => {
    assert.ok(error instanceof UsageError);
    assert.match(error.message, /begun\.partial holds an unfinished run: run with --resume/);
    return true;
  });
  await assert.rejects(open(begun, true, "other"), /was begun with another model or other options/);
});

test("plain tensors are F16 where that holds them, else BF16, else refused", async () => {
  const out = join(folder, "plain");
  const writer = await open(out);
  await writer.putPlain("small", Float32Array.of(1, -65504, 65519), [3]);
  await writer.putPlain("large", Float32Array.of(1, 65520), [2]);
  const journal = join(`${out}.partial`, "journal");
  assert.match(await readFile(join(journal, "small.plain"), "latin1"), /"dtype":"F16"/);
  assert.match(await readFile(join(journal, "large.plain"), "latin1"), /"dtype":"BF16"/);
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY, 3.4028234e38])
    await assert.rejects(writer.putPlain("bad", Float32Array.of(value), [1]), InputError);
});

test("an order that forgets or repeats a layer is a defect, not a folder", async () => {
  const out = join(folder, "order");
  const writer = await open(out);
  await writer.putCoded("a", syntheticMatrix("a", 8, 16));
  await writer.putCoded("b", syntheticMatrix("b", 8, 16));
  const finish = {
    config: TINY_CONFIG,
    tokenizerFiles: null,
    generationConfig: null,
    provenance: TINY_PROVENANCE,
  };
  for (const order of [["a"], ["a", "b", "a"], ["a", "b", "c"]])
    await assert.rejects(writer.finish({ ...finish, order }), RangeError);
  assert.equal(await exists(out), false);
});
