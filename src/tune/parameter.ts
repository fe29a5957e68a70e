/**
 * The small parameters of a coded model (row scales, tables, norms) and their optimiser: AdamW in plain
 * TypeScript, a few hundred thousand numbers. Each is trained relative to its size, so that one learning rate
 * serves scales of 0.01 and tables of 1.
 */
export interface Parameter {
  readonly name: string;
  readonly kind: "scales" | "tables" | "norm";
  readonly value: Float32Array;
  readonly gradient: Float32Array;
  /** What a step of 1 would change each number by, as long as `value`: its size at the start. */
  readonly unit: Float32Array;
}

export type ByKind = Readonly<Record<Parameter["kind"], number>>;

/** Sizes of numbers one by one: scales and norms, whose rows and columns differ by orders of magnitude. */
export function ownSizes(values: Float32Array): Float32Array {
  const rms = rootMeanSquare(values);
  return values.map((x) => Math.max(Math.abs(x), 0.1 * rms));
}

/** One size for all: tables, whose entries are one distribution around 0. */
export function commonSize(values: Float32Array): Float32Array {
  return new Float32Array(values.length).fill(rootMeanSquare(values));
}

function rootMeanSquare(values: Float32Array): number {
  let sum = 0;
  for (const x of values) sum += x * x;
  return Math.sqrt(sum / Math.max(1, values.length));
}

export interface AdamOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
}

/** (0.9, 0.95): the second moment forgets in 20 steps, since a run here has hundreds of steps, not thousands. */
export const ADAM_DEFAULTS: AdamOptions = { beta1: 0.9, beta2: 0.95, epsilon: 1e-12 };

/** The moments of one parameter. */
export interface Moments {
  readonly mean: Float32Array;
  readonly square: Float32Array;
}

/** Adam over parameters in their units (Kingma and Ba 2015, algorithm 1, without weight decay). */
export class Adam {
  readonly moments: ReadonlyMap<string, Moments>;

  constructor(
    readonly parameters: readonly Parameter[],
    readonly options: AdamOptions = ADAM_DEFAULTS,
  ) {
    this.moments = new Map(
      parameters.map(({ name, value }) => [
        name,
        { mean: new Float32Array(value.length), square: new Float32Array(value.length) },
      ]),
    );
  }

  /** Root of the sum of squares of all gradients, in units. */
  gradientNorm(): number {
    let sum = 0;
    for (const { gradient, unit } of this.parameters)
      for (let i = 0; i < gradient.length; i++) sum += (gradient[i] * unit[i]) ** 2;
    return Math.sqrt(sum);
  }

  /**
   * One step. `counts`: which step it is for each kind, from 1, or 0 for kinds that do not take part. `rates` are
   * the learning rates by kind, relative to the units; gradients are multiplied by `gradientScale` (clipping)
   * first.
   */
  step(counts: ByKind, rates: ByKind, gradientScale: number): void {
    const { beta1, beta2, epsilon } = this.options;
    for (const { name, kind, value, gradient, unit } of this.parameters) {
      if (counts[kind] === 0) continue;
      const correction1 = 1 - beta1 ** counts[kind];
      const correction2 = 1 - beta2 ** counts[kind];
      const { mean, square } = this.moments.get(name)!;
      const rate = rates[kind];
      for (let i = 0; i < value.length; i++) {
        const g = gradient[i] * unit[i] * gradientScale;
        mean[i] = beta1 * mean[i] + (1 - beta1) * g;
        square[i] = beta2 * square[i] + (1 - beta2) * g * g;
        const change = mean[i] / correction1 / (Math.sqrt(square[i] / correction2) + epsilon);
        value[i] -= rate * unit[i] * change;
      }
    }
  }
}
