/** The plain definitions of training's operations against finite differences. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Buffer } from "../backend.js";
import { largest, numbers, read, upload } from "../training.test.util.js";
import { ReferenceBackend } from "./backend.js";
import { ReferenceTraining } from "./training.js";

const plain = new ReferenceBackend();
const reference = { backend: plain, training: new ReferenceTraining(plain) };

/**
 * Compares gradients with central differences of `loss` over each element of `inputs`. Errors are relative to
 * the largest element of the gradient.
 */
async function checkGradients(
  inputs: readonly Float32Array[],
  gradients: readonly Float32Array[],
  loss: (inputs: readonly Float32Array[]) => number | Promise<number>,
  step: number,
  tolerance: number,
): Promise<void> {
  for (const [n, input] of inputs.entries()) {
    for (let i = 0; i < input.length; i++) {
      const at = async (offset: number) => {
        const moved = inputs.map((x) => x.slice());
        moved[n][i] += offset;
        return { x: moved[n][i], loss: await loss(moved) };
      };
      const [above, below] = [await at(step), await at(-step)];
      const slope = (above.loss - below.loss) / (above.x - below.x);
      const error = Math.abs(slope - gradients[n][i]) / largest(gradients[n]);
      assert.ok(error <= tolerance, `input ${n}[${i}]: gradient ${gradients[n][i]}, slope ${slope}`);
    }
  }
}

function weightedSum(weights: Float32Array, values: Float32Array): number {
  return weights.reduce((sum, w, i) => sum + w * values[i], 0);
}

function logSoftmax(row: Float32Array): Float64Array {
  const values = Float64Array.from(row);
  const total = values.reduce((sum, v) => sum + Math.exp(v), 0);
  return values.map((v) => v - Math.log(total));
}

test("reference: gradients of matmul balance: dx.x = dW.W = dy.y", async () => {
  const [tokens, inputs, outputs] = [5, 7, 6];
  const shape = { tokens, inputs, outputs };
  const [xData, wData, dyData] = [numbers(35, 1), numbers(42, 2), numbers(30, 3)];
  const [x, weight, dy] = [xData, wData, dyData].map((data) => upload(reference, data));
  const [y, dx, dWeight] = [30, 35, 42].map((length) => plain.allocate(length));
  plain.matmul({ x, weight, y, ...shape });
  reference.training.matmulBackwardInput({ dy, weight, dx, ...shape });
  reference.training.matmulBackwardWeight({ dy, x, dWeight, ...shape });
  const [yOut, dxOut, dWOut] = await read(reference, [y, dx, dWeight]);
  const product = weightedSum(dyData, yOut);
  assert.ok(Math.abs(weightedSum(dxOut, xData) - product) < 1e-5);
  assert.ok(Math.abs(weightedSum(dWOut, wData) - product) < 1e-5);
});

test("reference: rmsNorm against finite differences", async () => {
  const [rows, columns] = [3, 7];
  const inputs = [numbers(rows * columns, 4), numbers(columns, 5)];
  const dy = numbers(rows * columns, 6);
  const [x, weight] = inputs.map((data) => upload(reference, data));
  const [dx, dWeight] = [plain.allocate(rows * columns), plain.allocate(columns)];
  const shape = { rows, columns, epsilon: 1e-2 };
  reference.training.rmsNormBackward({ x, weight, dy: upload(reference, dy), dx, dWeight, ...shape });
  const forward = async (moved: readonly Float32Array[]) => {
    const [from, gain] = moved.map((data) => upload(reference, data));
    plain.rmsNorm(from, gain, from, rows, columns, shape.epsilon);
    return weightedSum(dy, await plain.read(from));
  };
  await checkGradients(inputs, await read(reference, [dx, dWeight]), forward, 1e-2, 2e-3);
});

for (const window of [null, 3]) {
  test(`reference: attention against finite differences, window ${window}`, async () => {
    const [tokens, heads, kvHeads, headSize] = [6, 4, 2, 3];
    const inputs = [heads, kvHeads, kvHeads].map((h, i) => numbers(tokens * h * headSize, 7 + i));
    const dy = numbers(tokens * heads * headSize, 10);
    const shape = { tokens, heads, kvHeads, headSize, scale: 0.6, window };
    const forward = ([query, keys, values]: readonly Buffer[]) => {
      const y = plain.allocate(dy.length);
      plain.attention({ query, keys, values, y, position: 0, ...shape });
      return y;
    };
    const buffers = inputs.map((data) => upload(reference, data));
    const [query, keys, values] = buffers;
    const [dQuery, dKeys, dValues] = inputs.map((data) => plain.allocate(data.length));
    reference.training.attentionBackward({
      ...{ query, keys, values, y: forward(buffers), dy: upload(reference, dy) },
      ...{ dQuery, dKeys, dValues, ...shape },
    });
    await checkGradients(
      inputs,
      await read(reference, [dQuery, dKeys, dValues]),
      async (moved) => weightedSum(dy, await plain.read(forward(moved.map((d) => upload(reference, d))))),
      1e-2,
      2e-3,
    );
  });
}

test("reference: siluMultiply against finite differences", async () => {
  const inputs = [numbers(20, 11, 5), numbers(20, 12)];
  const dy = numbers(20, 13);
  const [gate, up] = inputs.map((data) => upload(reference, data));
  reference.training.siluMultiplyBackward({
    ...{ gate, up, dy: upload(reference, dy), dGate: gate, dUp: up, length: 20 },
  });
  const forward = async (moved: readonly Float32Array[]) => {
    const [g, u] = moved.map((data) => upload(reference, data));
    plain.siluMultiply(g, u, 20);
    return weightedSum(dy, await plain.read(g));
  };
  await checkGradients(inputs, await read(reference, [gate, up]), forward, 1e-2, 1e-3);
});

test("reference: crossEntropy against its formula and finite differences", async () => {
  const columns = 9;
  const data = numbers(columns, 14, 3);
  const logits = upload(reference, data);
  const loss = plain.allocate(1);
  const forward = ([moved]: readonly Float32Array[]) => -logSoftmax(moved)[4];
  reference.training.crossEntropy({
    ...{ logits, targets: Int32Array.of(4), loss, rows: 1, columns, scale: 1 },
  });
  assert.ok(Math.abs((await plain.read(loss))[0] - forward([data])) < 1e-6);
  await checkGradients([data], await read(reference, [logits]), forward, 1e-3, 1e-5);
});

test("reference: divergence against its formula and finite differences", async () => {
  const columns = 9;
  const [target, data] = [numbers(columns, 15, 3), numbers(columns, 16, 3)];
  const [from, logits] = [target, data].map((values) => upload(reference, values));
  const loss = plain.allocate(1);
  const logP = logSoftmax(target);
  const forward = ([moved]: readonly Float32Array[]) => {
    const logQ = logSoftmax(moved);
    return logP.reduce((sum, p, i) => sum + Math.exp(p) * (p - logQ[i]), 0);
  };
  reference.training.divergence({ reference: from, logits, loss, rows: 1, columns, scale: 1 });
  assert.ok(Math.abs((await plain.read(loss))[0] - forward([data])) < 1e-6);
  const probabilities = await plain.read(from);
  logP.forEach((p, i) => {
    assert.ok(Math.abs(probabilities[i] - Math.exp(p)) < 1e-7);
  });
  await checkGradients([data], await read(reference, [logits]), forward, 1e-3, 1e-5);
});

test("reference: adamW's first step is the learning rate against the gradient's sign, and the decay", async () => {
  const [parameter, gradient] = [
    [1, -2, 3],
    [0.5, -1e-3, 0],
  ].map((v) => upload(reference, Float32Array.from(v)));
  const [mean, square] = [plain.allocate(3), plain.allocate(3)];
  reference.training.adamW({
    ...{ parameter, gradient, mean, square, length: 3, learningRate: 0.1, beta1: 0.9, beta2: 0.99 },
    ...{ epsilon: 1e-9, weightDecay: 0.01, gradientScale: 2, step: 1 },
  });
  const [moved] = await read(reference, [parameter]);
  [1 - 0.1 - 0.001, -2 + 0.1 + 0.002, 3 - 0.003].forEach((value, i) => {
    assert.ok(Math.abs(moved[i] - value) < 1e-6);
  });
});
