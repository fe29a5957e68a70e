// Speed of training, in tokens/s: forward and backward of every weight of a dense model, and the steps of a
// distillation of FOLDER from MODEL where one is given (teacher and decoding of the student's weights counted).
//   node bench/training.mjs MODEL [FOLDER] [--context 256] [--windows 1] [--steps 4] [--threads N]
// The first step of each allocates and is not counted; each figure is the best of the others.
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { openCheckpoint } from "../dist/checkpoint/open.js";
import { expectedTensors } from "../dist/checkpoint/tensors.js";
import { createTrainingBackend } from "../dist/compute/index.js";
import { WasmTraining } from "../dist/compute/wasm/training.js";
import { openFolder } from "../dist/container/reader.js";
import { createTokenizer } from "../dist/text/tokenizer.js";
import { DenseModel } from "../dist/train/dense-model.js";
import { Learner } from "../dist/training/learner.js";
import { NextToken } from "../dist/training/objective.js";
import { CodedModel } from "../dist/tune/coded-model.js";
import { Distiller } from "../dist/tune/distiller.js";
import { OriginalModel } from "../dist/tune/original.js";
import { timed } from "../dist/tune/run.js";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    context: { type: "string", default: "256" },
    windows: { type: "string", default: "1" },
    steps: { type: "string", default: "4" },
    threads: { type: "string" },
  },
});
const [source, folder] = positionals;
if (!source) throw new Error("give a model: node bench/training.mjs MODEL [FOLDER]");
const context = Number(values.context);
const windows = Number(values.windows);
const threads = values.threads === undefined ? undefined : Number(values.threads);

const checkpoint = await openCheckpoint(source);
const tokenizer = createTokenizer(await checkpoint.tokenizer());
// Any text serves: speed does not depend on it.
const ids = tokenizer.encode(readFileSync(new URL("../docs/format.md", import.meta.url), "utf8"));
const examples = Array.from({ length: windows }, (_, w) => {
  const at = (w * context) % (ids.length - context);
  return { ids: Int32Array.from(ids.slice(at, at + context)), scored: new Uint8Array(context).fill(1) };
});

async function report(name, step) {
  await step();
  const seconds = await timed(step, Number(values.steps) - 1);
  console.log(`${name.padEnd(48)} ${((windows * context) / seconds).toFixed(1)} tokens/s`);
}

async function dense() {
  const backend = await createTrainingBackend({ threads });
  console.log(`${backend.threads} threads, ${backend.runtime.arithmetic} arithmetic`);
  const training = new WasmTraining(backend);
  const { config } = checkpoint;
  const tensors = [];
  for (const name of expectedTensors(config).keys()) tensors.push([name, await checkpoint.read(name)]);
  const model = await DenseModel.create(backend, training, config, tensors);
  const objective = new NextToken(backend, training, context);
  const learner = new Learner({
    ...{ backend, training, model, objective, together: windows, context },
    optimiser: { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0 },
  });
  await report("forward + backward, all weights", () => learner.gradients(examples));
  await report("forward alone", () => learner.measure(examples));
  await backend.close();
}

async function distillation() {
  const backend = await createTrainingBackend({ threads });
  const training = new WasmTraining(backend);
  const teacher = await OriginalModel.open(backend, checkpoint);
  const opened = await openFolder(folder);
  const student = await CodedModel.open(backend, training, opened);
  const distiller = new Distiller(backend, training, teacher, student, { windows, context });
  await report("distillation step without tables", () => distiller.gradients(examples, false));
  await report("distillation step with tables", () => distiller.gradients(examples, true));
  await report("held-out measurement", () => distiller.measure(examples));
  await opened.close();
  await backend.close();
}

console.log(`Node ${process.versions.node}, ${windows} windows of ${context} tokens`);
await dense();
if (folder) await distillation();
await checkpoint.close();
