/**
 * The operations of training: the reference against finite differences, then every other implementation
 * against the reference, with the same bits for any number of threads.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { Backend, Buffer } from "./backend.js";
import { ReferenceBackend } from "./reference/backend.js";
import { ReferenceTraining } from "./reference/training.js";
import type { TrainingBackend } from "./training.js";
import { WasmBackend } from "./wasm/backend.js";
import { WasmTraining } from "./wasm/training.js";

interface Machine {
  readonly backend: Backend;
  readonly training: TrainingBackend;
}

const wasm = await Promise.all(
  [1, 2, 3].map(async (threads) => {
    const backend = await WasmBackend.create({ threads });
    return { backend, training: new WasmTraining(backend) };
  }),
);
if (wasm[0].backend.runtime.arithmetic === "fused") {
  const backend = await WasmBackend.create({ threads: 2, wide: true });
  wasm.push({ backend, training: new WasmTraining(backend) });
}
const plain = new ReferenceBackend();
const reference = { backend: plain, training: new ReferenceTraining(plain) };
after(() => Promise.all(wasm.map(({ backend }) => backend.close())));

/** Uniform numbers in [-size, size), the same on every run. */
function numbers(count: number, seed: number, size = 1): Float32Array {
  let state = seed >>> 0;
  return Float32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return size * (state / 2 ** 31 - 1);
  });
}

function upload({ backend }: Machine, data: Float32Array): Buffer {
  const buffer = backend.allocate(data.length);
  backend.write(buffer, data);
  return buffer;
}

function read({ backend }: Machine, buffers: readonly Buffer[]): Promise<Float32Array[]> {
  return Promise.all(buffers.map((buffer) => backend.read(buffer)));
}

function largest(values: Iterable<number>): number {
  let result = 1e-30;
  for (const value of values) result = Math.max(result, Math.abs(value));
  return result;
}

/** Each result is within `tolerance` of the reference, relative to the result's largest value. */
function conforms(
  name: string,
  tolerance: number,
  run: (machine: Machine) => Promise<readonly ArrayLike<number>[]>,
): void {
  test(name, async () => {
    const expected = await run(reference);
    let single: readonly ArrayLike<number>[] | undefined;
    for (const machine of wasm) {
      const { threads } = machine.backend;
      const actual = await run(machine);
      expected.forEach((result, n) => {
        assert.equal(actual[n].length, result.length);
        const limit = tolerance * largest(Array.from(result));
        for (let i = 0; i < result.length; i++)
          if (!(Math.abs(actual[n][i] - result[i]) <= limit))
            assert.fail(`${threads} threads: result ${n}[${i}] is ${actual[n][i]}, not ${result[i]}`);
      });
      single ??= actual;
      assert.deepEqual(actual, single, `${threads} threads differ from one`);
    }
  });
}

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

for (const [tokens, inputs, outputs] of [
  [1, 1, 1],
  [3, 7, 5],
  [5, 130, 33],
  [17, 100, 129],
  [70, 96, 64],
]) {
  conforms(`gradients of matmul ${tokens} x ${inputs} x ${outputs}`, 1e-6, async (m) => {
    const shape = { tokens, inputs, outputs };
    const dy = upload(m, numbers(tokens * outputs, 20));
    const [x, dx, more] = [21, 22, 23].map((seed) => upload(m, numbers(tokens * inputs, seed)));
    const [weight, dWeight] = [24, 25].map((seed) => upload(m, numbers(outputs * inputs, seed)));
    m.training.matmulBackwardInput({ dy, weight, dx, ...shape });
    m.training.matmulBackwardInput({ dy, weight, dx: more, ...shape, accumulate: true });
    m.training.matmulBackwardWeight({ dy, x, dWeight, ...shape });
    return read(m, [dx, more, dWeight]);
  });
}

for (const [rows, columns] of [
  [1, 1],
  [3, 6],
  [1, 577],
  [33, 35],
  [300, 576],
]) {
  conforms(`gradients of rmsNorm ${rows} x ${columns}`, 2e-6, async (m) => {
    const [x, dy, dx, other] = [30, 31, 32, 32].map((seed) => upload(m, numbers(rows * columns, seed)));
    const [weight, dWeight] = [33, 34].map((seed) => upload(m, numbers(columns, seed)));
    const shape = { x, weight, dy, rows, columns, epsilon: 1e-5 };
    m.training.rmsNormBackward({ ...shape, dx, dWeight });
    m.training.rmsNormBackward({ ...shape, dx: other });
    return read(m, [dx, dWeight, other]);
  });
  conforms(`columnDots ${rows} x ${columns}`, 2e-6, async (m) => {
    const [a, b] = [35, 36].map((seed) => upload(m, numbers(rows * columns, seed)));
    const [dots, sums] = [37, 38].map((seed) => upload(m, numbers(columns, seed)));
    m.training.columnDots(a, b, dots, rows, columns);
    m.training.columnDots(a, undefined, sums, rows, columns);
    return read(m, [dots, sums]);
  });
}

for (const [tokens, heads, headSize, position] of [
  [1, 1, 2, 0],
  [2, 3, 20, 1],
  [240, 9, 64, 11],
]) {
  conforms(`rope of ${tokens} tokens, ${heads} heads of ${headSize}, and back`, 4e-7, async (m) => {
    const data = numbers(tokens * heads * headSize, 40);
    const [x, back] = [upload(m, data), upload(m, data)];
    const angles = numbers(((tokens + position) * headSize) / 2, 41, 3);
    const [cosines, sines] = [angles.map(Math.cos), angles.map(Math.sin)].map((d) => upload(m, d));
    const shape = { cosines, sines, tokens, position, heads, headSize };
    m.training.ropeBackward({ x, ...shape });
    m.backend.rope({ x: back, ...shape });
    m.training.ropeBackward({ x: back, ...shape });
    const result = await m.backend.read(back);
    data.forEach((value, i) => {
      assert.ok(Math.abs(result[i] - value) < 1e-6);
    });
    return read(m, [x]);
  });
}

for (const [tokens, heads, kvHeads, headSize, window] of [
  [1, 1, 1, 8, null],
  [1, 9, 3, 64, null],
  [5, 4, 1, 6, null],
  [33, 6, 6, 16, null],
  [70, 9, 3, 64, null],
  [100, 9, 3, 6, 1],
  [100, 4, 1, 64, 17],
  [129, 4, 2, 10, 40],
  [150, 4, 2, 12, 150],
] as const) {
  const shape = { tokens, heads, kvHeads, headSize, scale: 1 / Math.sqrt(headSize), window };
  const name = `${tokens} tokens, ${heads}/${kvHeads} heads of ${headSize}, window ${window}`;
  conforms(`gradients of attention: ${name}`, 4e-6, async (m) => {
    const queries = tokens * heads * headSize;
    const cached = tokens * kvHeads * headSize;
    const [query, dy] = [upload(m, numbers(queries, 50, 4)), upload(m, numbers(queries, 51))];
    const [keys, values] = [52, 53].map((seed) => upload(m, numbers(cached, seed)));
    const y = m.backend.allocate(queries);
    m.backend.attention({ query, keys, values, y, position: 0, ...shape });
    // What was in the results before must not matter; what lies behind them must stay.
    const dQuery = upload(m, numbers(queries + 3, 54));
    const [dKeys, dValues] = [55, 56].map((seed) => upload(m, numbers(cached + 3, seed)));
    m.training.attentionBackward({ query, keys, values, y, dy, dQuery, dKeys, dValues, ...shape });
    return read(m, [dQuery, dKeys, dValues]);
  });
}

for (const length of [1, 7, 64, 200_003]) {
  conforms(`gradients of siluMultiply of ${length}, to other buffers and in place`, 1e-6, async (m) => {
    const gate = upload(m, numbers(length, 60, 20));
    const [up, dy, dGate, dUp] = [61, 62, 63, 64].map((seed) => upload(m, numbers(length, seed)));
    m.training.siluMultiplyBackward({ gate, up, dy, dGate, dUp, length });
    m.training.siluMultiplyBackward({ gate, up, dy, dGate: gate, dUp: dy, length });
    const results = await read(m, [dGate, dUp, gate, dy]);
    assert.deepEqual(results.slice(2), results.slice(0, 2), "in place");
    return results;
  });
  conforms(`scale, zero, sumSquares and adamW of ${length}`, 1e-6, async (m) => {
    const [parameter, gradient, mean, x] = [65, 66, 67, 68].map((s) => upload(m, numbers(length, s)));
    const square = upload(m, numbers(length, 69).map(Math.abs));
    for (const step of [1, 2, 300]) {
      m.training.adamW({
        ...{ parameter, gradient, mean, square, length, learningRate: 0.01, beta1: 0.9, beta2: 0.95 },
        ...{ epsilon: 1e-8, weightDecay: 0.1, gradientScale: 0.7, step },
      });
    }
    m.training.scale(x, 0.3, length);
    const sum = await m.training.sumSquares(x, length);
    const scaled = await m.backend.read(x);
    m.training.zero(x, length - 1);
    return [...(await read(m, [parameter, mean, square, x])), scaled, [sum]];
  });
}

for (const [rows, columns] of [
  [1, 1],
  [5, 6],
  [3, 1037],
  [2, 49_152],
]) {
  for (const size of [1, 30]) {
    conforms(`crossEntropy of ${rows} x ${columns}, logits to ${size}`, 2e-6, async (m) => {
      const logits = upload(m, numbers(rows * columns, 70, size));
      const loss = upload(m, numbers(rows, 71));
      const targets = Int32Array.from({ length: rows }, (_, r) => (r === 1 ? -1 : (7 * r) % columns));
      m.training.crossEntropy({ logits, targets, loss, rows, columns, scale: 0.25 });
      return read(m, [logits, loss]);
    });
    conforms(`divergence of ${rows} x ${columns}, logits to ${size}`, 2e-6, async (m) => {
      const [from, logits] = [72, 73].map((seed) => upload(m, numbers(rows * columns, seed, size)));
      const loss = upload(m, numbers(rows, 74));
      m.training.divergence({ reference: from, logits, loss, rows, columns, scale: 0.25 });
      return read(m, [from, logits, loss]);
    });
  }
}

conforms("crossEntropy and divergence of sure predictions", 1e-5, async (m) => {
  // One logit 20 above 4,095 others: loss 8.4e-6, which 1 + 8.4e-6 in f32 would round to 1%.
  const data = new Float32Array(4096).map((_, i) => (i === 77 ? 1020 : 1000));
  const [logits, other] = [upload(m, data), upload(m, data)];
  const from = upload(
    m,
    data.map((v, i) => (i === 77 ? v : Number.NEGATIVE_INFINITY)),
  );
  const [loss, divergence] = [m.backend.allocate(1), m.backend.allocate(1)];
  const shape = { rows: 1, columns: 4096, scale: 1 };
  m.training.crossEntropy({ logits, targets: Int32Array.of(77), loss, ...shape });
  m.training.divergence({ reference: from, logits: other, loss: divergence, ...shape });
  return read(m, [loss, divergence, logits]);
});

for (const [tokens, columns] of [
  [4, 23],
  [300, 577],
]) {
  conforms(`scatterAdd of ${tokens} x ${columns} to five rows`, 0, async (m) => {
    const table = upload(m, numbers(5 * columns, 80));
    const ids = Int32Array.from({ length: tokens }, (_, t) => (3 * t * t + 3) % 5);
    m.training.scatterAdd(table, ids, columns, upload(m, numbers(tokens * columns, 81)));
    return read(m, [table]);
  });
}

for (const machine of [reference, ...wasm]) {
  const { backend, training } = machine;
  test(`${backend.name}, ${backend.threads} threads, refuses what does not fit its buffers`, () => {
    const [small, big] = [backend.allocate(8), backend.allocate(64)];
    const shape = { rows: 2, columns: 8, scale: 1 };
    const targets = Int32Array.of(8, 0);
    for (const call of [
      () => training.columnDots(big, big, small, 8, 9),
      () => training.scale(small, 2, 9),
      () => training.scatterAdd(big, Int32Array.of(8), 8, big),
      () => training.crossEntropy({ logits: big, targets, loss: small, ...shape }),
      () => training.crossEntropy({ logits: big, targets: Int32Array.of(0), loss: small, ...shape }),
      () => training.divergence({ reference: small, logits: big, loss: small, ...shape }),
    ])
      assert.throws(call, RangeError);
    assert.throws(() => training.zero({ length: 8 }, 8), TypeError);
  });
}

test("working memory is given back", () => {
  const { backend, training } = wasm[0];
  training.free();
  const before = backend.runtime.bytesInUse;
  const x = backend.allocate(64);
  training.scatterAdd(x, Int32Array.of(1), 16, x);
  backend.free(x);
  assert.ok(backend.runtime.bytesInUse > before);
  training.free();
  assert.equal(backend.runtime.bytesInUse, before);
});
