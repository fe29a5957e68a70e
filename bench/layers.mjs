// Proxy error tr(E H Eᵀ) / tr(W H Wᵀ) of real layers, coded with error feedback, by rate and by how the codes
// are chained: S interleaved sequences, cyclic ("tail-biting") or from a fixed state. Mean over the matrices.
// usage: node bench/layers.mjs MODEL TEXT… [--layers 2,15,27] [--rates 1.5,2] [--windows 16]
import { parseArgs } from "node:util";
import { openCheckpoint } from "../dist/checkpoint/index.js";
import { encodeTrellis } from "../dist/codec/trellis/index.js";
import { calibrationWindows } from "../dist/compress/calibration-text.js";
import { SITES } from "../dist/compress/matrices.js";
import { CalibrationStream } from "../dist/compress/stream.js";
import { createBackend, DenseLinear } from "../dist/compute/index.js";
import { createTokenizer } from "../dist/text/tokenizer.js";
import {
  denseSource,
  EMBEDDING_NAME,
  freeLayer,
  layerLinears,
  loadLayer,
} from "../dist/transformer/weights.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    layers: { type: "string", default: "2,15,27" },
    rates: { type: "string", default: "1.5,2" },
    windows: { type: "string", default: "16" },
  },
});
const numbers = (list) => list.split(",").map(Number);
const CHAINS = [
  { interleave: 1, tailBiting: false },
  { interleave: 1, tailBiting: true },
  { interleave: 16, tailBiting: false },
  { interleave: 16, tailBiting: true },
];

const [source, ...files] = positionals;
const checkpoint = await openCheckpoint(source);
const { config } = checkpoint;
const backend = await createBackend();
const tokenizer = createTokenizer(await checkpoint.tokenizer());
const windows = await calibrationWindows(files, tokenizer, {
  context: 512,
  windows: Number(values.windows),
  seed: 0,
});
const stream = new CalibrationStream(backend, config, windows);
const embedding = new DenseLinear(
  backend,
  config.vocabularySize,
  config.hiddenSize,
  await checkpoint.read(`${EMBEDDING_NAME}.weight`),
);
stream.start(embedding, embedding);
embedding.free();

const errors = new Map();
for (let index = 0; index <= Math.max(...numbers(values.layers)); index++) {
  const layer = await loadLayer(backend, config, denseSource(backend, checkpoint), index);
  const measured = numbers(values.layers).includes(index);
  for (const { site, kinds } of SITES) {
    const statistics = await stream.visit(site, layer, layer, measured);
    if (!statistics) continue;
    for (const kind of kinds) {
      const { name, outputs: rows, inputs: columns } = layerLinears(config, index)[kind];
      const weights = await checkpoint.read(`${name}.weight`);
      const jobs = numbers(values.rates).flatMap((rate) => CHAINS.map((chain) => ({ rate, ...chain })));
      await Promise.all(
        jobs.map(async (job) => {
          const { hessian } = statistics;
          const { proxyError } = await encodeTrellis(backend.runtime, {
            weights,
            rows,
            columns,
            hessian,
            ...job,
          });
          const key = JSON.stringify(job);
          errors.set(key, [...(errors.get(key) ?? []), proxyError]);
        }),
      );
    }
  }
  stream.finish(layer);
  freeLayer(backend, layer);
}
console.log("| bits | sequences | tail-biting | proxy error |\n| --- | --- | --- | --- |");
for (const [key, list] of errors) {
  const { rate, interleave, tailBiting } = JSON.parse(key);
  const mean = list.reduce((a, b) => a + b, 0) / list.length;
  console.log(`| ${rate} | ${interleave} | ${tailBiting ? "yes" : "no"} | ${mean.toFixed(4)} |`);
}
await backend.close();
await checkpoint.close();
