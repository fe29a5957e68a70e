/** Training an adapter (LoRA) for a compressed model, which stays as it is. */

import { ADAPTER_WEIGHTS, type AdapterConfig } from "../adapter/peft-config.js";
import { adapterLayout, adapterTensors, readAdapter } from "../adapter/stored.js";
import { WasmTraining } from "../compute/wasm/training.js";
import { writeAdapted } from "../container/adapted.js";
import type { TrainingSet } from "../training/data.js";
import { type AdamWSettings, Learner } from "../training/learner.js";
import { NextToken } from "../training/objective.js";
import { stepsOfEpochs } from "../training/options.js";
import { drawnTokens, MEASUREMENTS, measuredExamples, runTraining } from "../training/trainer.js";
import { AdaptedModel, initialAdapter } from "./adapted-model.js";
import { Divergence } from "./divergence.js";
import { FrozenModel } from "./frozen-model.js";
import type { ResultOptions, TuneReport } from "./options.js";
import {
  type Distillation,
  describeTuning,
  identityOf,
  stepsOf,
  type TuningRun,
  timed,
  tunedProvenance,
} from "./run.js";

/** The defaults of Adam (Kingma and Ba 2015) and of Hugging Face's trainer. */
const OPTIMISER: AdamWSettings = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 };

/** Cross-entropy is at most that of a uniform guess, two to three times what a compressed model begins with. */
const LOSS_FACTOR = 1.5;

export interface Adaptation extends TuningRun {
  readonly adapter: NonNullable<ResultOptions["adapter"]>;
  /** What is learned from; without it the text itself is. */
  readonly teacher?: Distillation["teacher"] | undefined;
}

export async function adapt(run: Adaptation): Promise<Omit<TuneReport, "seconds">> {
  const { options, result, adapter, folder, teacher, set, backend, state } = run;
  const { signal, onProgress, log, resume = false, out } = options;
  const { context, batch, learningRate, seed } = result;
  const training = new WasmTraining(backend);
  const base = await FrozenModel.open(backend, folder);
  const start = initialAdapter(folder.config, { ...adapter, seed });
  const model = new AdaptedModel(backend, training, folder.config, base, start);
  const objective = teacher
    ? new Divergence(backend, training, teacher, context)
    : new NextToken(backend, training, context);
  const learner = new Learner({
    ...{ backend, training, model, objective, optimiser: OPTIMISER, context },
    // One at a time keeps its activations for the backward pass, but decodes layers that do not stay each time.
    together: base.resident ? 1 : batch,
  });
  const steps = await stepsOf(run, wholeSteps(run), () => paceOf(learner, set, batch, signal));
  const { rank, alpha, bits } = adapter;
  const tuning = await describeTuning(run, {
    ...{ method: "lora", objective: teacher ? "divergence" : "next token", rank, alpha, bits, steps },
  });
  const trained = await runTraining(learner, {
    ...{ set, steps, batch, learningRate, seed, folder: state, resume, log },
    lossFactor: teacher ? undefined : LOSS_FACTOR,
    ...{ identity: identityOf(run, tuning), stage: "training the adapter", signal, onProgress },
  });
  const pairs = await model.pairs();
  const config: AdapterConfig = { rank, alpha, bits, rankStabilised: false };
  // What is stored is rounded: measured as it will be used.
  const tensors = new Map(adapterTensors(pairs, bits).map((tensor) => [tensor.name, tensor]));
  const layout = adapterLayout(config, tensors, folder.config, ADAPTER_WEIGHTS);
  model.setPairs((await readAdapter(layout, async (name) => tensors.get(name)!.data)).pairs);
  const heldOutStored = await learner.measure(measuredExamples(set), signal);
  const provenance = tunedProvenance(folder, tuning);
  const weightBytes = await writeAdapted({
    ...{ out, folder, path: options.folder, config, pairs, provenance, signal },
  });
  return {
    weightBytes,
    ratio: folder.bytes16 / weightBytes,
    adapterBytes: weightBytes - folder.weightBytes,
    steps: trained.steps,
    tokens: drawnTokens(set, { seed, batch, steps: trained.steps }),
    heldOutBefore: trained.before,
    heldOutAfter: trained.after,
    heldOutStored,
    tokensPerSecond: trained.tokensPerSecond,
  };
}

function wholeSteps({ result, set, teacher }: Adaptation): number {
  const { tokens, epochs, context, batch } = result;
  return teacher ? Math.floor(tokens / (context * batch)) : stepsOfEpochs(epochs, set, batch);
}

/** Examples whose gradients are timed: a whole batch of 16 takes a quarter of a minute on SmolLM2. */
const TIMED = 4;

async function paceOf(learner: Learner, set: TrainingSet, batch: number, signal: AbortSignal | undefined) {
  const { training } = set;
  const tokensOf = (examples: TrainingSet["training"]) =>
    examples.reduce((sum, { ids }) => sum + ids.length, 0);
  const examples = training.slice(0, Math.min(TIMED, batch));
  // The first reads the teacher's layers, and allocates.
  await learner.gradients(examples.slice(0, 1), signal);
  const seconds = await timed(() => learner.gradients(examples, signal));
  const measuring = await timed(() => learner.measure(measuredExamples(set), signal));
  const tokensPerStep = (batch * tokensOf(training)) / training.length;
  return {
    secondsPerStep: (seconds * tokensPerStep) / tokensOf(examples),
    // Once more for what is stored.
    secondsBeside: (MEASUREMENTS + 2) * measuring,
  };
}
