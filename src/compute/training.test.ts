/**
 * The operations of training: every implementation against the reference (reference/training.test.ts), with the same
 * bits for any number of threads.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { ReferenceBackend } from "./reference/backend.js";
import { ReferenceTraining } from "./reference/training.js";
import { largest, type Machine, numbers, read, upload } from "./training.test.util.js";
import { WasmBackend } from "./wasm/backend.js";
import { WasmTraining } from "./wasm/training.js";

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
