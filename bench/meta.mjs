// The paper's method on real matrices: relative squared error, bits a weight (everything stored) and seconds, beside
// plain k-means with the same d and k, and with --trellis the trellis codec at the same total bits. No calibration.
// usage: node bench/meta.mjs MODEL [MATRIX…] [--d 8 --k 4096 | --bits 3] [--rln rows,columns,off] [--trellis]
//   MATRIX is part of a tensor's name, e.g. layers.15.self_attn.q_proj; default: all matrices.
//   --literal takes the paper's batch of 16384 on small matrices too; --initialisation kmeans;
//   --epochs N; --seed N; --threads N.
// Prints Markdown, one row a matrix.
import { parseArgs } from "node:util";
import { openCheckpoint } from "../dist/checkpoint/index.js";
import { codedBytes } from "../dist/codec/coded.js";
import { chooseK, encodeMeta, kMeans, META_DEFAULTS } from "../dist/codec/meta/index.js";
import { bitsPerWeight, encodeTrellis } from "../dist/codec/trellis/index.js";
import { WasmRuntime } from "../dist/compute/wasm/runtime.js";
import { InputError } from "../dist/errors.js";
import { Random } from "../dist/random.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    d: { type: "string", default: String(META_DEFAULTS.d) },
    k: { type: "string", default: String(META_DEFAULTS.k) },
    bits: { type: "string" },
    rln: { type: "string", default: "rows,columns,off" },
    epochs: { type: "string", default: String(META_DEFAULTS.epochs) },
    seed: { type: "string", default: "0" },
    initialisation: { type: "string", default: META_DEFAULTS.initialisation },
    threads: { type: "string" },
    literal: { type: "boolean", default: false },
    trellis: { type: "boolean", default: false },
  },
});
const [source, ...wanted] = positionals;
if (!source) {
  console.error("usage: node bench/meta.mjs MODEL [MATRIX…]");
  process.exit(2);
}
const seed = Number(values.seed);
const epochs = Number(values.epochs);
const { initialisation } = values;
const norms = values.rln.split(",");
const runtime = await WasmRuntime.create(values.threads ? { threads: Number(values.threads) } : {});
const checkpoint = await openCheckpoint(source);

/** Relative squared error of k-means with row-normalised (or raw) sub-vectors, the statistics not rounded. */
async function kMeansError(weights, columns, d, k, normalised) {
  const means = [];
  const deviations = [];
  for (let at = 0; at < weights.length; at += columns) {
    const row = weights.subarray(at, at + columns);
    const mean = normalised ? row.reduce((sum, w) => sum + w, 0) / columns : 0;
    const variance = row.reduce((sum, w) => sum + (w - mean) ** 2, 0) / columns;
    means.push(mean);
    deviations.push(normalised ? Math.sqrt(variance) || 1 : 1);
  }
  const rowOf = (i) => Math.floor(i / columns);
  const vectors = weights.map((w, i) => (w - means[rowOf(i)]) / deviations[rowOf(i)]);
  const { codebook, codes } = await kMeans(runtime, { vectors, d, k, random: new Random(seed) });
  let error = 0;
  let total = 0;
  for (let i = 0; i < weights.length; i++) {
    const entry = codebook[codes[Math.floor(i / d)] * d + (i % d)];
    error += (weights[i] - (means[rowOf(i)] + entry * deviations[rowOf(i)])) ** 2;
    total += weights[i] ** 2;
  }
  return error / total;
}

/** All codes of 4 and 3 bits over runs of one width with some narrower by one, in rising rate. */
const TRELLIS_CODES = [4, 3]
  .flatMap((codeBits) =>
    [4, 3, 2, 1].flatMap((width) =>
      Array.from({ length: 8 }, (_, narrow) => ({
        codeBits,
        widths: Array.from({ length: 8 }, (_, i) => (i < 8 - narrow || width === 1 ? width : width - 1)),
      })),
    ),
  )
  .map((code) => ({ ...code, rate: bitsPerWeight(code) }))
  .sort((a, b) => a.rate - b.rate);

/** The trellis codec at the highest rate whose stored bytes do not exceed `bytes`. */
async function trellisWithin(matrix, bytes) {
  const { rows, columns } = matrix;
  // A scale of 16 bits a row, and up to two tables of 2 x 16 x width half-precision numbers.
  const overhead = 16 / columns + (2 * 2 * 16 * 4 * 16) / (rows * columns);
  const rate = TRELLIS_CODES.findLast((code) => code.rate + overhead <= (8 * bytes) / (rows * columns));
  if (!rate) return undefined;
  return await encodeTrellis(runtime, { ...matrix, rate, seed });
}

/** d and k as asked for, or the best within --bits; undefined where no codebook is small enough. */
function shapeFor(rows, columns) {
  if (!values.bits) return { d: Number(values.d), k: Number(values.k) };
  try {
    return chooseK(rows, columns, Number(values.bits));
  } catch (error) {
    if (error instanceof InputError) return undefined;
    throw error;
  }
}

const headers = ["matrix", "shape", "d, k", "k-means", "k-means, rows normalised"];
for (const rln of norms) headers.push(`meta, RLN ${rln}`, "bits", "s");
if (values.trellis) headers.push("trellis", "bits", "s");
const line = (cells) => console.log(`| ${cells.join(" | ")} |`);
line(headers);
line(headers.map(() => "---"));
for (const [name, { shape }] of checkpoint.tensors) {
  if (shape.length !== 2 || (wanted.length > 0 && !wanted.some((part) => name.includes(part)))) continue;
  const [rows, columns] = shape;
  const weights = await checkpoint.read(name);
  const matrix = { weights, rows, columns };
  const chosen = shapeFor(rows, columns);
  if (!chosen) {
    line([name.replace(/\.weight$/, ""), `${rows} x ${columns}`, `nothing fits into ${values.bits} bits`]);
    continue;
  }
  const { d, k } = chosen;
  const cells = [name.replace(/\.weight$/, ""), `${rows} x ${columns}`, `${d}, ${k}`];
  for (const normalised of [false, true])
    cells.push((await kMeansError(weights, columns, d, k, normalised)).toFixed(4));
  const timed = async (encode) => {
    const start = performance.now();
    const result = await encode();
    if (!result) return cells.push("–", "–", "–");
    const bits = (8 * codedBytes(result.coded)) / weights.length;
    const seconds = (performance.now() - start) / 1000;
    cells.push(result.squaredError.toFixed(4), bits.toFixed(3), seconds.toFixed(seconds < 10 ? 1 : 0));
    return codedBytes(result.coded);
  };
  let bytes = 0;
  for (const rln of norms) {
    const options = { d, k, rln, initialisation, epochs, ...(values.literal && { stepsPerEpoch: 1 }) };
    bytes = Math.max(bytes, await timed(() => encodeMeta(runtime, { ...matrix, options, seed })));
  }
  if (values.trellis) await timed(() => trellisWithin(matrix, bytes));
  line(cells);
}
await checkpoint.close();
await runtime.close();
