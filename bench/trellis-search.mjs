// Searches the maps of the trellis codes (src/codec/trellis/maps.ts) and trains their default tables
// (src/codec/trellis/default-tables.ts). For each code: random GF(2)-linear maps are screened on few
// samples, the best retrained on more, and the best of those changed one column at a time for as long as
// the time lasts. Scores are on Gaussians that no training saw. Results are kept in a JSON file, which a
// later run improves on (its random maps differ by --seed), and printed as TypeScript by --print.
//
//   node bench/trellis-search.mjs --out maps.json [--codes 4:2,3:2] [--seconds 30] [--seed 1] [--print]
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { createCodebook } from "../dist/codec/trellis/codebook.js";
import { createSchedule } from "../dist/codec/trellis/schedule.js";
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
  const assess = (map, tables, rows, rounds, scored) => {
    candidates++;
    const trained = trainTables(runtime, { map, codeBits, width, rows, rounds, random, tables });
    return { map, tables: trained, distortion: distortion(map, codeBits, width, trained, scored) };
  };
  const best = (pool, count) => pool.sort((a, b) => a.distortion - b.distortion).slice(0, count);

  let pool = [];
  while (elapsed() < 0.45 * seconds) pool.push(assess(randomMap(codeBits, random), undefined, 3000, 5, 6000));
  pool = best(pool, 12).map(({ map, tables }) => assess(map, tables, 12000, 4, 30000));
  pool = best(pool, 4);
  while (elapsed() < 0.85 * seconds) {
    const parent = pool[random.below(pool.length)];
    const map = changed(parent.map, codeBits, random);
    // A screening from scratch; only a map that comes near its parent earns a full assessment.
    const first = assess(map, undefined, 3000, 5, 30000);
    if (first.distortion > 1.03 * parent.distortion) continue;
    pool = best([...pool, assess(map, first.tables, 12000, 4, 30000)], 4);
  }
  pool = pool.map(({ map, tables }) => assess(map, tables, 40000, 5, HELD_OUT));
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

/** S0 is n | n << 4: any S0 that is injective in both nibbles equals it after renaming table entries. */
function randomMap(codeBits, random) {
  for (;;) {
    const map = Array.from({ length: 12 }, (_, bit) =>
      bit < codeBits ? 0x11 << bit : 1 + random.below(255),
    );
    if (isUsable(map, codeBits)) return map;
  }
}

function changed(map, codeBits, random) {
  for (;;) {
    const copy = [...map];
    const changes = 1 + random.below(2);
    for (let i = 0; i < changes; i++) copy[codeBits + random.below(12 - codeBits)] = 1 + random.below(255);
    if (isUsable(copy, codeBits)) return copy;
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
