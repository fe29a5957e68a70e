/**
 * docs/format.md is enough to write a reader from: the Python reader of test/readers, which shares no code with
 * this program, decodes the same weights. Needs Python with numpy ($POCKETLLM_PYTHON or python3).
 */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { mergePair } from "../adapter/adapter.js";
import type { CodedMatrix } from "../codec/coded.js";
import type { MetaShape } from "../codec/meta/options.js";
import { codeForRate, RATES } from "../codec/trellis/code.js";
import { windowMap } from "../codec/trellis/maps.js";
import { bf16ToNumber, numberToBf16, roundToF16 } from "../tensor/dtype.js";
import type { CodedLayer } from "./layer.js";
import { decodeLayer } from "./linear.js";
import { openFolder } from "./reader.js";
import {
  metaMatrix,
  TINY_CONFIG,
  TINY_FINGERPRINT,
  TINY_PROVENANCE,
  type TrellisParameters,
  trellisMatrix,
  writeTinyAdapted,
  writeTinyFolder,
} from "./tiny-folder.test.util.js";
import { FolderWriter } from "./writer.js";

const PYTHON = process.env["POCKETLLM_PYTHON"] ?? "python3";
const READER = fileURLToPath(new URL("../../test/readers/read_pocketllm.py", import.meta.url));

function hasNumpy(): boolean {
  try {
    execFileSync(PYTHON, ["-c", "import numpy"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
const skip = hasNumpy() ? false : `${PYTHON} with numpy is not installed`;

let work: string;
before(async () => {
  work = await mkdtemp(join(tmpdir(), "pocketllm-python-"));
});
after(() => rm(work, { recursive: true, force: true }));

/** Writes layers and plain tensors to a folder, has Python decode it, and gives what it read by name. */
async function readInPython(
  name: string,
  layers: ReadonlyMap<string, CodedLayer>,
  plain: ReadonlyMap<string, Float32Array> = new Map(),
): Promise<(tensor: string) => Promise<Float32Array>> {
  const folder = join(work, name);
  const out = join(work, `${name}-decoded`);
  await mkdir(out);
  const writer = await FolderWriter.open(folder, { resume: false, fingerprint: TINY_FINGERPRINT });
  for (const [layer, coded] of layers) await writer.putCoded(layer, coded);
  for (const [tensor, values] of plain) await writer.putPlain(tensor, values, [values.length]);
  await writer.finish({
    config: TINY_CONFIG,
    tokenizerFiles: null,
    generationConfig: null,
    provenance: TINY_PROVENANCE,
    order: [...layers.keys(), ...plain.keys()],
    shardBytes: 20_000,
  });
  execFileSync(PYTHON, ["-B", READER, folder, out], { stdio: ["ignore", "ignore", "inherit"] });
  return (tensor) => floatsOf(join(out, `${tensor}.f32`));
}

async function floatsOf(path: string): Promise<Float32Array> {
  const bytes = await readFile(path);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

/** Largest difference relative to the largest weight. */
function assertClose(actual: Float32Array, expected: Float32Array, name: string): void {
  assert.equal(actual.length, expected.length, name);
  let largest = 0;
  let difference = 0;
  expected.forEach((value, i) => {
    largest = Math.max(largest, Math.abs(value));
    difference = Math.max(difference, Math.abs(value - actual[i]));
  });
  assert.ok(largest > 0, name);
  assert.ok(difference <= 1e-5 * largest, `${name}: off by ${difference} of ${largest}`);
}

test("docs/format.md and the Python reader have the maps of the codec", async () => {
  const format = await readFile(new URL("../../docs/format.md", import.meta.url), "utf8");
  const reader = await readFile(READER, "utf8");
  for (const codeBits of [3, 4] as const)
    for (const width of [1, 2, 3, 4]) {
      const [split, joint] = (["split", "joint"] as const).map((set) =>
        Buffer.from(windowMap(codeBits, width, set)).toString("hex"),
      );
      assert.ok(
        format.includes(`| ${codeBits} | ${width} | \`${split}\` | \`${joint}\` |`),
        `format.md, ${codeBits}:${width}`,
      );
      assert.ok(
        reader.includes(`(${codeBits}, ${width}): ("${split}", "${joint}")`),
        `reader, ${codeBits}:${width}`,
      );
    }
});

test("Python reads plain tensors in F16 and BF16", { skip }, async () => {
  const plain = new Map([
    ["f16", Float32Array.of(1, -2.5, 0.1)],
    ["bf16", Float32Array.of(1, -1e20, 0)],
  ]);
  const read = await readInPython("plain", new Map(), plain);
  assert.deepEqual(await read("f16"), plain.get("f16")!.map(roundToF16));
  assert.deepEqual(
    await read("bf16"),
    plain.get("bf16")!.map((value) => bf16ToNumber(numberToBf16(value))),
  );
});

test("Python decodes the method meta", { skip }, async () => {
  const layers = new Map<string, CodedMatrix>();
  const add = (rows: number, columns: number, change: Partial<MetaShape>) => {
    const name = `${Object.values(change).join("-") || "default"}-${rows}x${columns}`;
    layers.set(name, metaMatrix(name, rows, columns, change));
  };
  for (const rln of ["rows", "columns", "off"] as const)
    for (const groupScale of [true, false]) add(24, 32, { rln, groupScale });
  add(7, 40, { rln: "columns" });
  add(9, 8, { rln: "columns" });
  add(16, 24, { d: 4, k: 1024, hidden: 5, blocks: 1 });
  const read = await readInPython("meta", layers);
  for (const [name, matrix] of layers) assertClose(await read(`${name}.weight`), decodeLayer(matrix), name);
});

test("Python decodes the method trellis", { skip }, async () => {
  const layers = new Map<string, CodedMatrix>();
  const add = (name: string, rows: number, columns: number, change: Partial<TrellisParameters>) =>
    layers.set(name, trellisMatrix(name, rows, columns, change));
  for (const rate of RATES) {
    const { codeBits, widths } = codeForRate(rate);
    for (const interleave of [1, 16])
      for (const tailBiting of [true, false])
        add(`rate-${rate}-${interleave}-${tailBiting}`, 37, 40, { codeBits, widths, interleave, tailBiting });
  }
  // Every map, odd numbers of columns, cut groups, cycles shorter than a window.
  for (const codeBits of [3, 4] as const)
    for (const widths of [[1, 2, 3, 4], [4], [3]])
      for (const columns of [21, 64])
        add(`maps-${codeBits}-${widths.join("")}-${columns}`, 9, columns, {
          codeBits,
          widths,
          interleave: 4,
          maps: columns === 21 ? "split" : "joint",
        });
  add("short", 3, 7, { interleave: 2, rotationSeed: 2 ** 32 - 1 });
  add("shorter-than-interleave", 3, 8, { interleave: 16, tailBiting: false });
  const read = await readInPython("trellis", layers);
  for (const [name, matrix] of layers) assertClose(await read(`${name}.weight`), decodeLayer(matrix), name);
});

for (const bits of [16, 8, 4] as const)
  test(`Python adds an adapter of ${bits} bits`, { skip }, async () => {
    const [base, adapted] = [join(work, `base-${bits}`), join(work, `adapted-${bits}`)];
    await writeTinyFolder({ out: base });
    await writeTinyAdapted(base, adapted, bits);
    const out = join(work, `adapted-${bits}-decoded`);
    await mkdir(out);
    execFileSync(PYTHON, ["-B", READER, adapted, out], { stdio: ["ignore", "ignore", "inherit"] });
    const folder = await openFolder(adapted);
    try {
      const { pairs, scale } = (await folder.adapter())!;
      for (const name of [...folder.layers.keys(), "model.layers.1.mlp.down_proj"]) {
        const coded = folder.layers.has(name);
        const weight = coded ? decodeLayer(await folder.coded(name)) : await folder.plain(`${name}.weight`);
        const pair = pairs.get(name);
        if (pair) mergePair(weight, pair, scale);
        assertClose(await floatsOf(join(out, `${name}.weight.f32`)), weight, name);
      }
    } finally {
      await folder.close();
    }
  });

test("Python puts the tiers of a matrix together", { skip }, async () => {
  const parts = [metaMatrix("first", 5, 16, { k: 256 }), trellisMatrix("second", 9, 16, {})];
  const layer = {
    rows: 14,
    columns: 16,
    tiers: [
      { rows: [0, 5] as const, matrix: parts[0] },
      { rows: [5, 14] as const, matrix: parts[1] },
    ],
  };
  const read = await readInPython("tiers", new Map([["lm_head", layer]]));
  assertClose(await read("lm_head.weight"), decodeLayer(layer), "lm_head");
});
