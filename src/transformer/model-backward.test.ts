/**
 * Gradients through the whole family: the reference against finite differences of losses that sessions
 * compute, the WASM backend against the reference, and what a batch, a teacher or an abort must not change.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import type { ModelConfig } from "../checkpoint/config.js";
import { ReferenceBackend } from "../compute/reference/backend.js";
import { ReferenceTraining } from "../compute/reference/training.js";
import { WasmBackend } from "../compute/wasm/backend.js";
import { WasmTraining } from "../compute/wasm/training.js";
import { InputError } from "../errors.js";
import { Random } from "../random.js";
import { HEAD_ELEMENTS, ModelBackward } from "./model-backward.js";
import {
  type Loss,
  type Machine,
  nextToken,
  ResidentModel,
  type Tensors,
  targetsOf,
} from "./resident-model.test.util.js";
import { largestDifference, randomIds, randomTensors, tinyConfig } from "./tiny-model.test.util.js";

const plain = new ReferenceBackend();
const reference: Machine = { backend: plain, training: new ReferenceTraining(plain) };
const wasm = await Promise.all(
  [1, 2, 3].map(async (threads) => {
    const backend = await WasmBackend.create({ threads });
    return { backend, training: new WasmTraining(backend) };
  }),
);
after(() => Promise.all(wasm.map(({ backend }) => backend.close())));

/** Σ KL(teacher || student) over all windows; `losses` gets each window's. */
function distil(teacher: ResidentModel, windows: readonly Int32Array[], losses: number[]): Loss {
  const { machine, config } = teacher;
  const { backend, training } = machine;
  const maxTokens = Math.max(...windows.map((ids) => ids.length));
  return async ({ window, from, tokens: rows, logits }) => {
    const pass = new ModelBackward(backend, training, config, 1, maxTokens);
    await pass.forward(teacher, [windows[window]]);
    const expected = pass.logits(teacher, 0, windows[window].length, from, rows);
    const loss = backend.allocate(rows);
    const columns = config.vocabularySize;
    training.divergence({ reference: expected, logits, loss, rows, columns, scale: 1 });
    losses.push((await backend.read(loss)).reduce((sum, x) => sum + x, 0));
    pass.free();
    backend.free(loss);
  };
}

function logSoftmax(logits: Float32Array, row: number, columns: number): Float64Array {
  const values = Float64Array.from(logits.subarray(row * columns, (row + 1) * columns));
  const total = values.reduce((sum, x) => sum + Math.exp(x), 0);
  return values.map((x) => x - Math.log(total));
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>) => {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
};

/**
 * Compares the gradient of every tensor with the slope of `loss` (nats) along the gradient and along a random
 * direction. A tensor's error is relative to the slope that its gradient has in a typical direction.
 */
async function checkSlopes(
  model: ResidentModel,
  gradients: Tensors,
  tensors: Tensors,
  loss: () => Promise<number>,
): Promise<void> {
  const random = new Random(5);
  for (const [name, gradient] of gradients) {
    const parameter = model.parameters.get(name)!;
    const start = tensors.get(name)!;
    const norm = Math.sqrt(dot(gradient, gradient));
    assert.ok(norm > 1e-3, `${name}: the gradient's norm is ${norm}`);
    for (const [what, direction] of [
      ["the gradient", Float64Array.from(gradient)],
      ["a random direction", Float64Array.from(gradient, () => random.normal())],
    ] as const) {
      const length = Math.sqrt(dot(direction, direction));
      const typical = what === "the gradient" ? norm : norm / Math.sqrt(gradient.length);
      // Losses are good to 1e-6 or so in f32: steps are so long that they change by about 0.02.
      const step = Math.min(0.02 / typical, 0.02 * Math.sqrt(dot(start, start)));
      const at = async (steps: number) => {
        model.machine.backend.write(
          parameter,
          start.map((x, i) => x + (steps * step * direction[i]) / length),
        );
        return loss();
      };
      // Central differences of order 4: curvature would show in those of order 2.
      const near = (await at(1)) - (await at(-1));
      const far = (await at(2)) - (await at(-2));
      const slope = (8 * near - far) / (12 * step);
      const expected = dot(gradient, direction) / length;
      const error = Math.abs(slope - expected) / Math.max(typical, Math.abs(expected));
      assert.ok(error < 2e-3, `${name} along ${what}: slope ${slope}, by the gradient ${expected}`);
    }
    model.machine.backend.write(parameter, start);
  }
}

/** Largest difference of each tensor, relative to the largest element of the expected one. */
function assertClose(actual: Tensors, expected: Tensors, tolerance: number): void {
  assert.deepEqual([...actual.keys()], [...expected.keys()]);
  for (const [name, values] of expected) {
    const largest = values.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
    const error = largestDifference(actual.get(name)!, values) / largest;
    assert.ok(error < tolerance, `${name}: ${error} of its largest element`);
  }
}

/** A factor on a matrix's row, and on its bias, changes the loss as all weights of the row together. */
function assertRowFactors(factors: Tensors, gradients: Tensors, tensors: Tensors): void {
  assert.ok(factors.size >= 8);
  const expected = new Map(
    [...factors].map(([name, { length: rows }]) => {
      const dots = (suffix: string) => {
        const [values, gradient] = [tensors.get(name + suffix), gradients.get(name + suffix)];
        if (!values || !gradient) return new Float32Array(rows);
        const columns = values.length / rows;
        const row = (x: Float32Array, r: number) => x.subarray(r * columns, (r + 1) * columns);
        return Float32Array.from({ length: rows }, (_, r) => dot(row(values, r), row(gradient, r)));
      };
      const biases = dots(".bias");
      return [name, dots(".weight").map((x, r) => x + biases[r])];
    }),
  );
  assertClose(factors, expected, 1e-4);
}

const FAMILY: Readonly<Record<string, ModelConfig>> = {
  "llama, tied": tinyConfig(),
  "llama, untied, four heads on one": tinyConfig({ tiedEmbeddings: false, kvHeads: 1 }),
  "llama with every bias, a key for each head": tinyConfig({
    ...{ qkvBias: true, outputBias: true, mlpBias: true, kvHeads: 4 },
  }),
  qwen2: tinyConfig({ architecture: "qwen2", qkvBias: true }),
  "qwen3, heads wider than the model": tinyConfig({ architecture: "qwen3", qkNorm: true, headSize: 12 }),
  "mistral, a window of 3 tokens": tinyConfig({
    ...{ architecture: "mistral", tiedEmbeddings: false, slidingWindow: 3 },
  }),
};

for (const [name, config] of Object.entries(FAMILY)) {
  test(`${name}: gradients are the slopes of the loss, on every backend`, async () => {
    const tensors = randomTensors(config);
    const columns = config.vocabularySize;
    const windows = [randomIds(11, columns, 3)];
    const model = await ResidentModel.create(reference, config, tensors);
    const gradients = await model.gradientsOf(windows, nextToken(reference, windows, columns));
    assertRowFactors(await model.rowFactorGradients(), gradients, tensors);
    await checkSlopes(model, gradients, tensors, async () => {
      const logits = await model.logits(windows[0]);
      const targets = targetsOf(windows[0], 0, 10);
      return targets.reduce((sum, target, t) => sum - logSoftmax(logits, t, columns)[target], 0);
    });
    for (const machine of wasm) {
      const other = await ResidentModel.create(machine, config, tensors);
      const loss = nextToken(machine, windows, columns);
      assertClose(await other.gradientsOf(windows, loss), gradients, 2e-5);
      assertRowFactors(await other.rowFactorGradients(), gradients, tensors);
      other.free();
    }
  });
}

for (const machine of [reference, wasm[1]]) {
  test(`${machine.backend.name}: a batch gives the sum of its windows' gradients, whatever was before`, async () => {
    const { backend, training } = machine;
    const config = tinyConfig({ tiedEmbeddings: false, qkNorm: true, qkvBias: true });
    const tensors = randomTensors(config);
    const columns = config.vocabularySize;
    const model = await ResidentModel.create(machine, config, tensors);
    const windows = [9, 1, 14, 2].map((length, i) => randomIds(length, columns, 20 + i));
    const expected = new Map([...tensors].map(([name, { length }]) => [name, new Float64Array(length)]));
    for (const ids of windows)
      for (const [name, gradient] of await model.gradientsOf([ids], nextToken(machine, [ids], columns)))
        gradient.forEach((value, i) => {
          expected.get(name)![i] += value;
        });
    const before = [20, 20, 20, 20, 20].map((length, i) => randomIds(length, columns, 30 + i));
    const rounded = new Map([...expected].map(([name, values]) => [name, Float32Array.from(values)]));
    let first: Tensors | undefined;
    // Activations kept, and computed twice: bit for bit the same.
    for (const keptBytes of [undefined, 0]) {
      const backward = new ModelBackward(backend, training, config, 5, 20, keptBytes);
      await model.gradientsOf(before, nextToken(machine, before, columns), backward);
      const sum = await model.gradientsOf(windows, nextToken(machine, windows, columns), backward);
      assertClose(sum, rounded, 4e-6);
      first ??= sum;
      assert.deepEqual(sum, first);
      for (const tooMuch of [[...before, before[0]], [randomIds(21, columns)]])
        await assert.rejects(backward.forward(model, tooMuch), /a batch larger than the buffers made for it/);
      backward.free();
    }
    model.free();
  });
}

test("gradients are bit for bit the same for any number of threads", async () => {
  // So large that every operation is shared out: compute/wasm/work.ts.
  const config = tinyConfig({
    ...{ hiddenSize: 256, intermediateSize: 300, heads: 4, headSize: 64, vocabularySize: 331, layers: 1 },
    ...{ qkNorm: true, qkvBias: true, outputBias: true, mlpBias: true },
  });
  const tensors = randomTensors(config);
  const windows = [517, 130].map((length, i) => randomIds(length, config.vocabularySize, 40 + i));
  let single: Tensors | undefined;
  for (const machine of wasm) {
    const model = await ResidentModel.create(machine, config, tensors);
    const gradients = await model.gradientsOf(windows, nextToken(machine, windows, config.vocabularySize));
    single ??= gradients;
    for (const [name, values] of gradients) assert.deepEqual(values, single.get(name), name);
    model.free();
  }
});

test("logits are those of a session, also where only a few rows fit at a time", async () => {
  const machine = wasm[1];
  const config = tinyConfig({ slidingWindow: 5 });
  const columns = config.vocabularySize;
  const model = await ResidentModel.create(machine, config, randomTensors(config));
  const windows = [randomIds(11, columns, 50), randomIds(4, columns, 51)];
  const whole = await model.gradientsOf(windows, nextToken(machine, windows, columns));
  // Buffers made for a vocabulary of which four rows fit.
  const large = { ...config, vocabularySize: HEAD_ELEMENTS / 4 };
  const backward = new ModelBackward(machine.backend, machine.training, large, 2, 11);
  assertClose(await model.gradientsOf(windows, nextToken(machine, windows, columns), backward), whole, 4e-6);
  await backward.forward(model, windows);
  for (const [window, ids] of windows.entries()) {
    const expected = await model.logits(ids);
    const rows: number[] = [];
    await backward.chunks(model, window, ids.length, async ({ from, tokens, logits, window: shown }) => {
      assert.equal(shown, window);
      const actual = await machine.backend.read(logits, 0, tokens * columns);
      assert.ok(
        largestDifference(actual, expected.subarray(from * columns, (from + tokens) * columns)) < 2e-5,
      );
      rows.push(tokens);
    });
    assert.deepEqual(rows, window === 0 ? [4, 4, 3] : [4]);
  }
  assert.throws(() => backward.logits(model, 0, 11, 0, 5), /5 rows of logits for 4/);
  backward.free();
  model.free();
});

test("layers are open one at a time, and tensors that are not trained change nothing", async () => {
  const config = tinyConfig({ layers: 3, qkNorm: true, qkvBias: true, tiedEmbeddings: false });
  const tensors = randomTensors(config);
  const windows = [randomIds(8, config.vocabularySize, 60), randomIds(5, config.vocabularySize, 61)];
  const loss = nextToken(reference, windows, config.vocabularySize);
  const model = await ResidentModel.create(reference, config, tensors);
  const all = await model.gradientsOf(windows, loss);
  const passes = [..."012"].map((i) => `forward ${i}`).concat([..."210"].map((i) => `backward ${i}`));
  assert.deepEqual(
    model.log,
    passes.flatMap((pass) => [`+${pass}`, `-${pass}`]),
  );
  for (const name of ["model.layers.1.self_attn.k_proj.bias", "model.layers.0.self_attn.q_norm.weight"]) {
    const part = await ResidentModel.create(reference, config, tensors, [name]);
    const gradients = await part.gradientsOf(windows, loss);
    assert.deepEqual(gradients, new Map([[name, all.get(name)]]));
  }
});

for (const machine of [reference, wasm[1]]) {
  test(`${machine.backend.name}: distillation follows a teacher, and stands still at its own model`, async () => {
    const config = tinyConfig({ tiedEmbeddings: false });
    const [tensors, others] = [randomTensors(config, 1), randomTensors(config, 2)];
    const columns = config.vocabularySize;
    const windows = [randomIds(7, columns, 70), randomIds(12, columns, 71)];
    const student = await ResidentModel.create(machine, config, tensors);
    const teacher = await ResidentModel.create(machine, config, others);
    const [same, apart]: [number[], number[]] = [[], []];
    for (const [name, values] of await student.gradientsOf(windows, distil(student, windows, same)))
      assert.ok(
        values.every((x) => x === 0),
        `${name} of a student that is its teacher`,
      );
    assert.deepEqual(same, [0, 0]);
    const gradients = await student.gradientsOf(windows, distil(teacher, windows, apart));
    const wanted = await Promise.all(windows.map((ids) => teacher.logits(ids)));
    const divergences = async () => {
      const logits = await Promise.all(windows.map((ids) => student.logits(ids)));
      return logits.map((rows, window) => {
        let sum = 0;
        for (let t = 0; t < windows[window].length; t++) {
          const logQ = logSoftmax(rows, t, columns);
          logSoftmax(wanted[window], t, columns).forEach((logP, c) => {
            sum += Math.exp(logP) * (logP - logQ[c]);
          });
        }
        return sum;
      });
    };
    assert.ok(largestDifference(apart, await divergences()) < 1e-4 * apart[1], `${apart}`);
    await checkSlopes(student, gradients, tensors, async () => dot(await divergences(), [1, 1]));
    student.free();
    teacher.free();
  });
}

test("an abort stops before the next layer or window, and the buffers can be used again", async () => {
  const { backend, training } = reference;
  const config = tinyConfig();
  const columns = config.vocabularySize;
  const model = await ResidentModel.create(reference, config, randomTensors(config));
  const windows = [randomIds(6, columns, 80), randomIds(6, columns, 81)];
  const loss = nextToken(reference, windows, columns);
  const expected = await model.gradientsOf(windows, loss);
  const backward = new ModelBackward(backend, training, config, 2, 6);
  for (const [place, entries, heads] of [
    ["the start", 0, 0],
    ["-forward 0", 2, 0],
    ["head 0", 4, 1],
    ["-backward 1", 6, 2],
    ["a timer", 0, 0],
  ] as const) {
    const abort = new AbortController();
    const reached = (where: string) => {
      if (where === place) abort.abort(new InputError(`interrupted at ${place}`));
    };
    model.log.length = 0;
    model.logged = reached;
    reached("the start");
    setTimeout(reached, 0, "a timer");
    let seen = 0;
    const run = backward.run(model, {
      windows,
      loss: async (chunk) => {
        seen++;
        await loss(chunk);
        reached(`head ${chunk.window}`);
      },
      signal: abort.signal,
    });
    await assert.rejects(run, { name: "InputError", message: `interrupted at ${place}` });
    assert.deepEqual([model.log.length, seen], [entries, heads], place);
  }
  model.logged = () => {};
  assert.deepEqual(await model.gradientsOf(windows, loss, backward), expected);
});

test("free gives all memory back, also after an abort, and so does a construction that fails", async () => {
  const machine = wasm[1];
  const { backend, training } = machine;
  const config = tinyConfig({ qkNorm: true, qkvBias: true });
  const windows = [randomIds(17, config.vocabularySize, 90)];
  const loss = nextToken(machine, windows, config.vocabularySize);
  const model = await ResidentModel.create(machine, config, randomTensors(config));
  // The first run grows working memory that the backend keeps.
  await model.gradientsOf(windows, loss);
  const before = backend.runtime.bytesInUse;
  await model.gradientsOf(windows, loss);
  assert.equal(backend.runtime.bytesInUse, before);
  const backward = new ModelBackward(backend, training, config, 1, 17);
  assert.ok(backend.runtime.bytesInUse > before);
  const signal = AbortSignal.abort();
  await assert.rejects(backward.run(model, { windows, loss, signal }), { name: "AbortError" });
  backward.free();
  assert.equal(backend.runtime.bytesInUse, before);
  model.free();

  const small = await WasmBackend.create({ threads: 1, maximumBytes: 2 ** 23 });
  for (const tokens of [3000, 5000, 10_000, 20_000, 50_000])
    assert.throws(() => new ModelBackward(small, new WasmTraining(small), config, 2, tokens), InputError);
  assert.equal(small.runtime.bytesInUse, 0);
  await small.close();
});
