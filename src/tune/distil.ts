/** Distillation into a folder's own numbers: row scales, tables and norms; codes stay, and so does the size. */
import { WasmTraining } from "../compute/wasm/training.js";
import { MEASUREMENTS, measuredExamples, runTraining } from "../training/trainer.js";
import { CodedModel } from "./coded-model.js";
import { Distiller, TABLES_EVERY } from "./distiller.js";
import type { TuneReport } from "./options.js";
import { type Distillation, describeTuning, identityOf, stepsOf, timed } from "./run.js";
import { saveTuned } from "./save.js";

export async function distil(run: Distillation): Promise<Omit<TuneReport, "seconds">> {
  const { options, result, folder, teacher, set, backend, state } = run;
  const { signal, onProgress, log, resume = false } = options;
  const { context, batch, learningRate, seed } = result;
  const training = new WasmTraining(backend);
  const model = await CodedModel.open(backend, training, folder);
  const distiller = new Distiller(backend, training, teacher, model, { windows: batch, context });
  const steps = await stepsOf(run, Math.floor(result.tokens / (context * batch)), async () => {
    const examples = Array.from({ length: batch }, (_, i) => set.training[i % set.training.length]);
    // The first reads the teacher's layers, and allocates.
    await distiller.gradients(examples, true, signal);
    const tables = await timed(() => distiller.gradients(examples, true, signal), 2);
    const plain = await timed(() => distiller.gradients(examples, false, signal), 2);
    const measuring = await timed(() => distiller.measure(measuredExamples(set), signal));
    return {
      secondsPerStep: plain + (tables - plain) / TABLES_EVERY,
      secondsBeside: (MEASUREMENTS + 1) * measuring,
    };
  });
  const tuning = await describeTuning(run, { method: "distill", tokens: steps * context * batch });
  const trained = await runTraining(distiller, {
    ...{ set, steps, batch, learningRate, seed, folder: state, resume, log },
    ...{ identity: identityOf(run, tuning), stage: "distilling", signal, onProgress },
  });
  const weightBytes = await saveTuned({ out: options.out, folder, model, tuning, signal, onProgress });
  return {
    weightBytes,
    ratio: folder.bytes16 / weightBytes,
    steps: trained.steps,
    tokens: trained.steps * context * batch,
    heldOutBefore: trained.before,
    heldOutAfter: trained.after,
    tokensPerSecond: trained.tokensPerSecond,
  };
}
