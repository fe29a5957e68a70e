// Time of a step in which several sequences advance together, as `serve` runs them, and what it costs to draw.
//   node bench/batch.mjs FOLDER [--sequences 1,4,16,32] [--context 200] [--steps 10] [--threads 2]
// With --cpu-prof of Node the main thread, which is one of the workers, shows where a step goes.
import { parseArgs } from "node:util";
import { loadModel } from "../dist/index.js";
import { Random } from "../dist/random.js";
import { Sampler } from "../dist/runtime/sampling.js";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    sequences: { type: "string", default: "1,4,16,32" },
    context: { type: "string", default: "200" },
    steps: { type: "string", default: "10" },
    threads: { type: "string", default: "2" },
  },
});
const CONTEXT = Number(options.context);
const STEPS = Number(options.steps);
const [folder] = positionals;
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

const model = await loadModel(folder, { threads: Number(options.threads), joinVectors: true });
const { vocabularySize } = model.config;
const random = new Random(0);
const ids = (count) => Int32Array.from({ length: count }, () => random.below(vocabularySize));
for (const sequences of options.sequences.split(",").map(Number)) {
  const batch = model.createBatch({ sequences, chunk: 72 });
  const sessions = Array.from({ length: sequences }, () => batch.createSession(CONTEXT + STEPS + 2));
  for (const session of sessions) await session.forward(ids(CONTEXT));
  const samplers = sessions.map((_, seed) => new Sampler({ temperature: 1, seed, logprobs: false }));
  const [forward, draw] = [[], []];
  let next = sessions.map(() => ids(1));
  for (let step = 0; step < STEPS + 2; step++) {
    const begun = performance.now();
    const logits = await batch.forward(sessions, next);
    const drawn = performance.now();
    next = logits.map((row, i) => Int32Array.of(samplers[i].next(row).id));
    if (step < 2) continue;
    forward.push(drawn - begun);
    draw.push(performance.now() - drawn);
  }
  const [step, drawing] = [median(forward), median(draw)];
  const rate = (1000 * sequences) / (step + drawing);
  console.log(
    `${sequences} sequences after ${CONTEXT} tokens: ${step.toFixed(1)} ms a step, drawing ${drawing.toFixed(1)} ms, ${rate.toFixed(1)} tokens/s`,
  );
  for (const session of sessions) session.free();
  batch.free();
}
await model.close();
