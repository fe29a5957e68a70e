/**
 * The reference of training: each operation of `TrainingBackend` written as its formula, accumulated in
 * float64, results rounded to f32. It defines what the other implementations must compute and runs tests.
 */
import type { Buffer, RopeOptions } from "../backend.js";
import { checkLength, checkRope } from "../checks.js";
import type {
  AdamWOptions,
  AttentionBackwardOptions,
  MatmulBackwardInputOptions,
  MatmulBackwardWeightOptions,
  RmsNormBackwardOptions,
  TrainingBackend,
} from "../training.js";
import {
  checkAdamW,
  checkAttentionBackward,
  checkColumnDots,
  checkCrossEntropy,
  checkDivergence,
  checkMatmulBackwardInput,
  checkMatmulBackwardWeight,
  checkRmsNormBackward,
  checkScatterAdd,
  checkSiluMultiplyBackward,
} from "../training-checks.js";
import { floats, type ReferenceBackend } from "./backend.js";

export class ReferenceTraining implements TrainingBackend {
  readonly #backend: ReferenceBackend;

  /** Works on the buffers of `backend`. */
  constructor(backend: ReferenceBackend) {
    this.#backend = backend;
  }

  matmulBackwardInput(options: MatmulBackwardInputOptions): void {
    const { tokens, inputs, outputs, accumulate } = options;
    checkMatmulBackwardInput(options);
    const [dy, weight, dx] = [options.dy, options.weight, options.dx].map(floats);
    for (let t = 0; t < tokens; t++) {
      for (let i = 0; i < inputs; i++) {
        let sum = accumulate ? dx[t * inputs + i] : 0;
        for (let o = 0; o < outputs; o++) sum += dy[t * outputs + o] * weight[o * inputs + i];
        dx[t * inputs + i] = sum;
      }
    }
  }

  matmulBackwardWeight(options: MatmulBackwardWeightOptions): void {
    const { tokens, inputs, outputs } = options;
    checkMatmulBackwardWeight(options);
    const [dy, x, dWeight] = [options.dy, options.x, options.dWeight].map(floats);
    for (let o = 0; o < outputs; o++) {
      for (let i = 0; i < inputs; i++) {
        let sum = dWeight[o * inputs + i];
        for (let t = 0; t < tokens; t++) sum += dy[t * outputs + o] * x[t * inputs + i];
        dWeight[o * inputs + i] = sum;
      }
    }
  }

  rmsNormBackward(options: RmsNormBackwardOptions): void {
    const { rows, columns, epsilon } = options;
    checkRmsNormBackward(options);
    const [x, weight, dy, dx] = [options.x, options.weight, options.dy, options.dx].map(floats);
    const weightSums = new Float64Array(columns);
    for (let r = 0; r < rows; r++) {
      const row = r * columns;
      let squares = 0;
      let dot = 0;
      for (let c = 0; c < columns; c++) {
        squares += x[row + c] ** 2;
        dot += weight[c] * dy[row + c] * x[row + c];
      }
      // y = x s w; s depends on every x: ds/dx[c] = -s³ x[c] / columns.
      const scale = 1 / Math.sqrt(squares / columns + epsilon);
      for (let c = 0; c < columns; c++) {
        weightSums[c] += dy[row + c] * x[row + c] * scale;
        dx[row + c] += scale * weight[c] * dy[row + c] - (scale ** 3 * dot * x[row + c]) / columns;
      }
    }
    if (options.dWeight) addTo(floats(options.dWeight), weightSums);
  }

  ropeBackward(options: RopeOptions): void {
    checkRope(options);
    const sines = this.#backend.allocate(options.sines.length);
    this.#backend.write(
      sines,
      floats(options.sines).map((s) => -s),
    );
    this.#backend.rope({ ...options, sines });
  }

  attentionBackward(options: AttentionBackwardOptions): void {
    const { tokens, heads, kvHeads, headSize, scale, window } = options;
    checkAttentionBackward(options);
    const [query, keys, values] = [options.query, options.keys, options.values].map(floats);
    const [y, dy] = [options.y, options.dy].map(floats);
    const dQuery = new Float64Array(tokens * heads * headSize);
    const dKeys = new Float64Array(tokens * kvHeads * headSize);
    const dValues = new Float64Array(tokens * kvHeads * headSize);
    for (let t = 0; t < tokens; t++) {
      const first = window === null ? 0 : Math.max(0, t - window + 1);
      for (let h = 0; h < heads; h++) {
        const q = (t * heads + h) * headSize;
        const keyOf = (p: number) => (p * kvHeads + Math.floor((h * kvHeads) / heads)) * headSize;
        const scores: number[] = [];
        for (let p = first; p <= t; p++) scores.push(dot(query, q, keys, keyOf(p), headSize) * scale);
        const weights = softmax(scores);
        // The gradient of softmax: dScore = weight * (dWeight - Σ weight dWeight), and that sum is dy . y.
        const mean = dot(dy, q, y, q, headSize);
        for (let p = first; p <= t; p++) {
          const k = keyOf(p);
          const weight = weights[p - first];
          const dScore = weight * (dot(dy, q, values, k, headSize) - mean) * scale;
          for (let i = 0; i < headSize; i++) {
            dValues[k + i] += weight * dy[q + i];
            dQuery[q + i] += dScore * keys[k + i];
            dKeys[k + i] += dScore * query[q + i];
          }
        }
      }
    }
    floats(options.dQuery).set(dQuery);
    floats(options.dKeys).set(dKeys);
    floats(options.dValues).set(dValues);
  }

  siluMultiplyBackward(options: Parameters<TrainingBackend["siluMultiplyBackward"]>[0]): void {
    const { length } = options;
    checkSiluMultiplyBackward(options);
    const [gate, up, dy] = [options.gate, options.up, options.dy].map(floats);
    const [dGate, dUp] = [options.dGate, options.dUp].map(floats);
    for (let i = 0; i < length; i++) {
      const [g, u, d] = [gate[i], up[i], dy[i]];
      const sigmoid = 1 / (1 + Math.exp(-g));
      dGate[i] = d * u * sigmoid * (1 + g * (1 - sigmoid));
      dUp[i] = d * g * sigmoid;
    }
  }

  columnDots(a: Buffer, b: Buffer | undefined, sum: Buffer, rows: number, columns: number): void {
    checkColumnDots(a, b, sum, rows, columns);
    const left = floats(a);
    const right = b && floats(b);
    const sums = new Float64Array(columns);
    for (let i = 0; i < rows * columns; i++) sums[i % columns] += left[i] * (right ? right[i] : 1);
    addTo(floats(sum), sums);
  }

  crossEntropy(options: Parameters<TrainingBackend["crossEntropy"]>[0]): void {
    const { targets, rows, columns, scale } = options;
    checkCrossEntropy(options);
    const loss = floats(options.loss);
    for (let r = 0; r < rows; r++) {
      const row = floats(options.logits).subarray(r * columns, (r + 1) * columns);
      const target = targets[r];
      if (target === -1) {
        loss[r] = 0;
        row.fill(0);
        continue;
      }
      loss[r] = -logSoftmax(row)[target];
      const probabilities = softmax(row);
      probabilities[target] -= 1;
      for (let c = 0; c < columns; c++) row[c] = scale * probabilities[c];
    }
  }

  divergence(options: Parameters<TrainingBackend["divergence"]>[0]): void {
    const { rows, columns, scale } = options;
    checkDivergence(options);
    for (let r = 0; r < rows; r++) {
      const reference = floats(options.reference).subarray(r * columns, (r + 1) * columns);
      const logits = floats(options.logits).subarray(r * columns, (r + 1) * columns);
      const [logP, logQ] = [reference, logits].map(logSoftmax);
      const [p, q] = [reference, logits].map(softmax);
      let sum = 0;
      for (let c = 0; c < columns; c++) if (p[c] > 0) sum += p[c] * (logP[c] - logQ[c]);
      floats(options.loss)[r] = sum;
      for (let c = 0; c < columns; c++) {
        logits[c] = scale * (q[c] - p[c]);
        reference[c] = p[c];
      }
    }
  }

  scatterAdd(dTable: Buffer, ids: Int32Array, columns: number, dy: Buffer): void {
    checkScatterAdd(dTable, ids, columns, dy);
    const [to, from] = [floats(dTable), floats(dy)];
    ids.forEach((id, t) => {
      for (let c = 0; c < columns; c++) to[id * columns + c] += from[t * columns + c];
    });
  }

  scale(x: Buffer, factor: number, length: number): void {
    checkLength("scale x", x, length);
    const values = floats(x);
    for (let i = 0; i < length; i++) values[i] *= factor;
  }

  zero(x: Buffer, length: number): void {
    checkLength("zero x", x, length);
    floats(x).fill(0, 0, length);
  }

  async sumSquares(x: Buffer, length: number): Promise<number> {
    checkLength("sumSquares x", x, length);
    return floats(x)
      .subarray(0, length)
      .reduce((sum, v) => sum + v * v, 0);
  }

  adamW(options: AdamWOptions): void {
    const { length, learningRate, beta1, beta2, epsilon, weightDecay, gradientScale, step } = options;
    checkAdamW(options);
    const [parameter, gradient, mean, square] = [
      options.parameter,
      options.gradient,
      options.mean,
      options.square,
    ].map(floats);
    for (let i = 0; i < length; i++) {
      const g = gradient[i] * gradientScale;
      const m = beta1 * mean[i] + (1 - beta1) * g;
      const v = beta2 * square[i] + (1 - beta2) * g * g;
      const unbiasedMean = m / (1 - beta1 ** step);
      const unbiasedSquare = v / (1 - beta2 ** step);
      const update = unbiasedMean / (Math.sqrt(unbiasedSquare) + epsilon) + weightDecay * parameter[i];
      parameter[i] -= learningRate * update;
      mean[i] = m;
      square[i] = v;
    }
  }
}

function addTo(to: Float32Array, from: Float64Array): void {
  from.forEach((value, i) => {
    to[i] += value;
  });
}

function dot(a: Float32Array, aFrom: number, b: Float32Array, bFrom: number, length: number): number {
  let sum = 0;
  for (let i = 0; i < length; i++) sum += a[aFrom + i] * b[bFrom + i];
  return sum;
}

function logSoftmax(row: ArrayLike<number>): Float64Array {
  const values = Float64Array.from(row);
  const largest = values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  const total = values.reduce((sum, v) => sum + Math.exp(v - largest), 0);
  return values.map((v) => v - largest - Math.log(total));
}

function softmax(row: ArrayLike<number>): Float64Array {
  return logSoftmax(row).map(Math.exp);
}
