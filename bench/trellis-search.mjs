// Searches the split maps of the trellis codes (src/codec/trellis/maps.ts) and trains their default tables
// (src/codec/trellis/default-tables.ts). For each code: random GF(2)-linear maps are screened on few
// samples, the best retrained on more, and the best of those changed a column or two at a time for as long as
// the time lasts. Scores are on Gaussians that no training saw. Results are kept in a JSON file, which a
// later run improves on (its random maps differ by --seed), and printed as TypeScript by --print.
//
//   node bench/trellis-search.mjs --out maps.json [--codes 4:2,3:2] [--seconds 30] [--seed 1] [--print]
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { createCodebook } from "../dist/codec/trellis/codebook.js";
import { createSchedule, imageOf } from "../dist/codec/trellis/schedule.js";
import { gaussians, meanSquaredError, trainTables } from "../dist/codec/trellis/train.js";
import { searchCodes } from "../dist/codec/trellis/viterbi.js";
import { WasmRuntime } from "../dist/compute/wasm/runtime.js";
import { Random } from "../dist/random.js";
import { roundToF16 } from "../dist/tensor/dtype.js";

const ALL = "4:1,4:2,4:3,4:4,3:1,3:2,3:3,3:4";
const { values } = parseArgs({
  options: {
    out: { type: "string" },
    codes: { type: "string", default: ALL },
    seconds: { type: "string", default: "30" },
    seed: { type: "string", default: "1" },
    print: { type: "boolean", default: false },
  },
});
if (!values.out) throw new Error("--out FILE is needed");
const results = existsSync(values.out) ? JSON.parse(readFileSync(values.out, "utf8")) : {};
if (values.print) {
  print();
  process.exit();
}

const HELD_OUT = 200_000;
const runtime = await WasmRuntime.create({ threads: 1 });
const heldOut = gaussians(HELD_OUT, 4, new Random(0x5eed));

for (const name of values.codes.split(",")) {
  const [codeBits, width] = name.split(":").map(Number);
  const random = new Random(1000 * Number(values.seed) + 10 * codeBits + width);
  const found = search(codeBits, width, random, Number(values.seconds));
  const before = results[name]?.distortion ?? Number.POSITIVE_INFINITY;
  const better = found.distortion < before;
  if (better) results[name] = found;
  console.log(
    `${name}: ${found.distortion.toFixed(5)} after ${found.candidates} maps${better ? "" : `, kept ${before.toFixed(5)}`}`,
  );
  writeFileSync(values.out, JSON.stringify(results, null, 1));
}
await runtime.close();

function search(codeBits, width, random, seconds) {
  const start = performance.now();
  const elapsed = () => (performance.now() - start) / 1000;
  let candidates = 0;
  /** Trains from `tables` (or anew) and scores on the first `scored` held-out samples, not used by others. */
  const assess = (parts, tables, rows, rounds, scored) => {
    candidates++;
    const map = splitMap(parts, codeBits);
    const trained = trainTables(runtime, { map, codeBits, width, rows, rounds, random, tables });
    return { parts, map, tables: trained, distortion: distortion(map, codeBits, width, trained, scored) };
  };
  const best = (pool, count) => pool.sort((a, b) => a.distortion - b.distortion).slice(0, count);

  let pool = [];
  while (elapsed() < 0.45 * seconds)
    pool.push(assess(randomParts(codeBits, random), undefined, 3000, 5, 6000));
  pool = best(pool, 12).map(({ parts, tables }) => assess(parts, tables, 24000, 4, 100000));
  pool = best(pool, 4);
  while (elapsed() < 0.85 * seconds) {
    const parent = pool[random.below(pool.length)];
    const parts = changedParts(parent.parts, codeBits, random);
    // A screening from scratch; only a map that comes near its parent earns a full assessment.
    const first = assess(parts, undefined, 6000, 5, 60000);
    if (first.distortion > 1.03 * parent.distortion) continue;
    pool = best([...pool, assess(parts, first.tables, 24000, 4, 100000)], 4);
  }
  pool = pool.map(({ parts, tables }) => assess(parts, tables, 40000, 5, HELD_OUT));
  const winner = best(pool, 1)[0];
  const tables = trainTables(runtime, { ...winner, codeBits, width, rows: 200_000, rounds: 4, random }).map(
    roundToF16,
  );
  return {
    map: winner.map,
    tables: [...tables],
    distortion: distortion(winner.map, codeBits, width, tables, HELD_OUT),
    candidates,
  };
}

function distortion(map, codeBits, width, tables, rows) {
  const targets = new Float32Array(width * rows);
  for (let v = 0; v < width; v++) targets.set(heldOut.subarray(v * HELD_OUT, v * HELD_OUT + rows), v * rows);
  const codebook = createCodebook(map, codeBits, tables, 1.2 * 4 ** (-codeBits / width));
  return meanSquaredError(searchCodes(runtime, { targets, rows, codebook }).bytes, targets, tables);
}

/**
 * A split map by what it is made of, in nibbles: T (`carry`, codes of 3 bits only: what a code adds to the nibble after
 * it), S1 (`before`, in the high half) and S2 (`twoBefore`, in the low half). S0 is n | n << 4: any S0 that is injective
 * in both halves equals it after renaming table entries.
 */
function splitMap({ carry, before, twoBefore }, codeBits) {
  const first = before.map((nibble) => nibble << 4);
  if (codeBits === 4) return [0x11, 0x22, 0x44, 0x88, ...first, ...twoBefore];
  return [
    ...[0x11, 0x22, 0x44],
    ...carry.map((t, j) => (t | (t << 4)) ^ first[j]),
    ...carry.map((t, j) => imageOf(first, 4, 0, t) ^ twoBefore[j]),
    ...carry.map((t) => imageOf(twoBefore, 4, 0, t)),
  ];
}

function randomParts(codeBits, random) {
  for (;;) {
    const nibbles = (count) => Array.from({ length: count }, () => random.below(16));
    const parts = { carry: nibbles(3), before: nibbles(4), twoBefore: nibbles(4) };
    if (isUsable(splitMap(parts, codeBits), codeBits)) return parts;
  }
}

function changedParts(parts, codeBits, random) {
  for (;;) {
    const copy = structuredClone(parts);
    const nibbles = [copy.before, copy.twoBefore, ...(codeBits === 3 ? [copy.carry] : [])];
    const changes = 1 + random.below(2);
    for (let i = 0; i < changes; i++) {
      const changed = nibbles[random.below(nibbles.length)];
      changed[random.below(changed.length)] = random.below(16);
    }
    if (isUsable(splitMap(copy, codeBits), codeBits)) return copy;
  }
}

function isUsable(map, codeBits) {
  try {
    createSchedule(map, codeBits);
    return true;
  } catch (error) {
    if (error instanceof RangeError) return false;
    throw error;
  }
}

function print() {
  for (const [name, { map, distortion }] of Object.entries(results))
    console.log(
      `  "${name}": [${map.map((b) => `0x${b.toString(16).padStart(2, "0")}`).join(", ")}], // ${distortion.toPrecision(4)}`,
    );
  for (const [name, { tables, distortion }] of Object.entries(results))
    console.log(
      `  "${name}": { distortion: ${distortion.toPrecision(4)}, tables: [${tables.map((x) => Number(x.toPrecision(5))).join(", ")}] },`,
    );
}
