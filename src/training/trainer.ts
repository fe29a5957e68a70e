/**
 * The loop of every training run: batches in their order, the learning rate, a log, held-out measurements and
 * with each of them a state on disk, from which a run that was killed goes on and ends with the same bytes. What
 * measured best is what a run ends with, and from its middle on it stops when three measurements in a row were no
 * better (in a short run, as many as span 30 steps).
 */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { InputError } from "../errors.js";
import type { OnProgress } from "../progress.js";
import type { TrainingExample, TrainingSet } from "./data.js";
import { DivergenceGuard } from "./diverge.js";
import { EarlyStop, type Measurement } from "./early-stop.js";
import { TrainingLog } from "./log.js";
import { ExampleOrder } from "./order.js";
import { createSchedule } from "./schedule.js";
import { readTrainingState, type StateIdentity, type StateTensor, writeTrainingState } from "./state.js";

export interface StepResult {
  /** Mean loss of the batch's scored positions before the step, in nats. */
  readonly loss: number;
  /** Of the gradient before clipping. */
  readonly gradientNorm: number;
}

/** What is trained, as the loop sees it. */
export interface Trainee {
  /** Everything that a step changes. */
  readonly state: readonly StateTensor[];
  /**
   * One optimiser step; `step` counts from 0. `check` sees loss and gradient norm before anything changes, and
   * may throw.
   */
  step(
    step: number,
    batch: readonly TrainingExample[],
    rate: number,
    check: (result: StepResult) => void,
    signal?: AbortSignal | undefined,
  ): Promise<StepResult>;
  /** Mean loss on examples, nothing changed. */
  measure(examples: readonly TrainingExample[], signal?: AbortSignal | undefined): Promise<number>;
}

export interface TrainerOptions {
  readonly set: TrainingSet;
  readonly steps: number;
  /** Examples of a step. */
  readonly batch: number;
  readonly learningRate: number;
  readonly seed: number;
  /** Where the state is kept. */
  readonly folder: string;
  readonly identity: StateIdentity;
  readonly resume: boolean;
  /** Default: in `folder`. */
  readonly log?: string | undefined;
  /** How many times its best the loss may be before the run is lost. Default 3. */
  readonly lossFactor?: number | undefined;
  /** For progress: "distilling". */
  readonly stage: string;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

export interface TrainingResult {
  /** Those done; what is kept may be of an earlier one. */
  readonly steps: number;
  /** Held-out loss before, and of what is kept, in nats. */
  readonly before: number;
  readonly after: number;
  /** Of this run, what a resumed one did before not counted. */
  readonly tokensPerSecond: number;
}

/** Gradients longer than this are shortened to it. */
const CLIP = 1;

/** What a gradient of this length is multiplied by. */
export function clipping(gradientNorm: number): number {
  return gradientNorm > CLIP ? CLIP / gradientNorm : 1;
}

/** Held-out text is measured this often in a run, and a state is kept then. */
export const MEASUREMENTS = 10;
/** Measurements no better that end a run, at least as many as this many steps have: fewer tell little. */
const PATIENCE = { measurements: 3, steps: 30 };
/** Most held-out tokens that are measured on. */
const HELD_OUT_TOKENS = 2048;

/** Tokens of the examples of a run's first steps. */
export function drawnTokens(
  { training }: TrainingSet,
  { seed, batch, steps }: { readonly seed: number; readonly batch: number; readonly steps: number },
): number {
  const order = new ExampleOrder(training.length, seed);
  let tokens = 0;
  for (let draw = 0; draw < steps * batch; draw++) tokens += training[order.at(draw)].ids.length;
  return tokens;
}

/** What is measured on, of the examples that are held out: at least one. */
export function measuredExamples({ heldOut }: TrainingSet): readonly TrainingExample[] {
  let tokens = 0;
  return heldOut.filter(({ ids }, i) => {
    tokens += ids.length;
    return i === 0 || tokens <= HELD_OUT_TOKENS;
  });
}

/** A run that ends no better than it began. */
export class NoGainError extends InputError {}

/** InputError, one line, for a run that is lost; NoGainError for one that did not help. The state stays then. */
export function runTraining(trainee: Trainee, options: TrainerOptions): Promise<TrainingResult> {
  return new TrainingRun(trainee, options).run();
}

class TrainingRun {
  readonly #trainee: Trainee;
  readonly #options: TrainerOptions;
  readonly #heldOut: readonly TrainingExample[];
  readonly #losses: number[] = [];
  readonly #measurements: Measurement[] = [];
  /** Steps from one measurement to the next. */
  readonly #every: number;
  readonly #stop: EarlyStop;
  readonly #guard: DivergenceGuard;

  constructor(trainee: Trainee, options: TrainerOptions) {
    this.#trainee = trainee;
    this.#options = options;
    this.#heldOut = measuredExamples(options.set);
    this.#every = Math.max(1, Math.ceil(options.steps / MEASUREMENTS));
    const patience = Math.max(PATIENCE.measurements, Math.ceil(PATIENCE.steps / this.#every));
    this.#stop = new EarlyStop({ patience, from: options.steps / 2 });
    this.#guard = new DivergenceGuard({ learningRate: options.learningRate, factor: options.lossFactor });
  }

  async run(): Promise<TrainingResult> {
    const { set, steps, batch, learningRate, seed, folder, stage, signal } = this.#options;
    const schedule = createSchedule({ learningRate, steps });
    const order = new ExampleOrder(set.training.length, seed);
    await mkdir(folder, { recursive: true });
    const first = await this.#resume();
    const log = await TrainingLog.open(this.#options.log ?? join(folder, "log.jsonl"), first);
    let [tokens, seconds] = [0, 0];
    try {
      if (first === 0) await this.#measure(-1);
      for (let step = first; step < steps && !this.#stop.stop; step++) {
        const examples = Array.from({ length: batch }, (_, i) => set.training[order.at(step * batch + i)]);
        const rate = schedule(step);
        const begun = performance.now();
        const check = (found: StepResult) => this.#guard.check(step, found.loss, found.gradientNorm);
        const { loss, gradientNorm } = await this.#trainee.step(step, examples, rate, check, signal);
        this.#losses.push(loss);
        tokens += examples.reduce((sum, { ids }) => sum + ids.length, 0);
        seconds += (performance.now() - begun) / 1000;
        const tokensPerSecond = tokens / seconds;
        const due = step === steps - 1 || (step + 1) % this.#every === 0;
        const heldOut = due ? await this.#measure(step) : undefined;
        await log.append({ step, loss, learningRate: rate, gradientNorm, tokensPerSecond, heldOut });
        if (heldOut !== undefined) {
          await log.flush();
          await this.#keep(step + 1);
        }
        const detail = `loss ${loss.toFixed(3)}, held out ${this.#measurements.at(-1)?.loss.toFixed(4)}, ${tokensPerSecond.toFixed(0)} tokens/s`;
        this.#options.onProgress?.({ stage, done: step + 1, total: steps, detail });
      }
    } finally {
      await log.close();
    }
    const before = this.#measurements[0].loss;
    const best = this.#stop.best;
    if (!best || best.step < 0)
      throw new NoGainError(
        `the loss on held-out text is ${before.toPrecision(4)} before and ${this.#measurements.at(-1)?.loss.toPrecision(4)} after training: nothing is written; try a lower learning rate or more text`,
      );
    if (best !== this.#measurements.at(-1))
      await readTrainingState(this.#bestFile, this.#options.identity, this.#trainee.state);
    const after = best.loss;
    return { steps: this.#losses.length, before, after, tokensPerSecond: seconds > 0 ? tokens / seconds : 0 };
  }

  async #measure(step: number): Promise<number> {
    const loss = await this.#trainee.measure(this.#heldOut, this.#options.signal);
    this.#record({ step, loss });
    return loss;
  }

  #record(measurement: Measurement): void {
    this.#guard.checkHeldOut(measurement.step, measurement.loss);
    this.#measurements.push(measurement);
    this.#stop.add(measurement);
  }

  get #stateFile(): string {
    return join(this.#options.folder, "state.safetensors");
  }

  get #bestFile(): string {
    return join(this.#options.folder, "best.safetensors");
  }

  /** The state after `step` steps and, where it is the best so far, once more as that. */
  async #keep(step: number): Promise<void> {
    await this.#write(this.#stateFile, step);
    if (this.#isBest(step)) await this.#write(this.#bestFile, step);
  }

  #isBest(step: number): boolean {
    return this.#stop.best?.step === step - 1;
  }

  async #write(path: string, step: number): Promise<void> {
    const history = { step, losses: this.#losses, heldOut: this.#measurements };
    await writeTrainingState(path, this.#options.identity, history, this.#trainee.state);
  }

  /** The next step of an interrupted run, or 0. */
  async #resume(): Promise<number> {
    const { resume, identity } = this.#options;
    if (!resume) return 0;
    const found = await readTrainingState(this.#stateFile, identity, this.#trainee.state);
    if (!found) return 0;
    for (const [step, loss] of found.losses.entries()) {
      this.#losses.push(loss);
      this.#guard.check(step, loss, 0);
    }
    for (const measurement of found.heldOut) this.#record(measurement);
    // It may have been killed between the two.
    if (this.#isBest(found.step)) await this.#write(this.#bestFile, found.step);
    return found.step;
  }
}
