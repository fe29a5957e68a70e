/** The operations of inference but for attention, over every backend. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Backend, TrellisWeights } from "./backend.js";
import { conforms, numbers, reference, upload, wasm } from "./conforming.test.util.js";
import { ReferenceBackend } from "./reference/backend.js";
import { lanesOf, positionsOf } from "./trellis-lanes.js";

for (const [tokens, inputs, outputs] of [
  [1, 1, 1],
  [1, 64, 50],
  [3, 7, 5],
  [4, 8, 2],
  [5, 130, 33],
  [2, 576, 192],
  [1, 1536, 576],
  [17, 576, 129],
  [6, 2050, 35],
  [64, 96, 70],
  [35, 300, 53],
]) {
  for (const biased of [false, true]) {
    conforms(`matmul ${tokens} x ${inputs} x ${outputs}${biased ? " with bias" : ""}`, 1e-6, async (b) => {
      const x = upload(b, numbers(tokens * inputs, 1));
      const weight = upload(b, numbers(outputs * inputs, 2));
      const bias = biased ? upload(b, numbers(outputs, 3)) : undefined;
      const y = upload(b, numbers(tokens * outputs + 3, 4));
      b.matmul({ x, weight, bias, y, tokens, inputs, outputs });
      return b.read(y);
    });
  }
}

test("a token's product does not depend on the batch it is in", async () => {
  const [inputs, outputs, tokens] = [1100, 37, 9];
  const [backend] = wasm;
  const data = numbers(tokens * inputs, 5);
  const weight = upload(backend, numbers(outputs * inputs, 6));
  const y = backend.allocate(tokens * outputs);
  backend.matmul({ x: upload(backend, data), weight, y, tokens, inputs, outputs });
  const batch = await backend.read(y);
  for (let t = 0; t < tokens; t++) {
    const x = upload(backend, data.subarray(t * inputs, (t + 1) * inputs));
    backend.matmul({ x, weight, y, tokens: 1, inputs, outputs });
    assert.deepEqual(await backend.read(y, 0, outputs), batch.slice(t * outputs, (t + 1) * outputs));
  }
});

conforms("gather", 0, async (b) => {
  const y = b.allocate(15);
  b.gather(upload(b, numbers(70, 7)), Int32Array.of(13, 0, 4), 5, y);
  return b.read(y);
});

for (const [rows, columns] of [
  [1, 1],
  [3, 6],
  [2, 576],
  [5, 1037],
  [300, 576],
]) {
  conforms(`rmsNorm ${rows} x ${columns}, to another buffer and in place`, 1e-6, async (b) => {
    const x = upload(b, numbers(rows * columns, 8));
    const weight = upload(b, numbers(columns, 9));
    const y = b.allocate(rows * columns);
    b.rmsNorm(x, weight, y, rows, columns, 1e-5);
    b.rmsNorm(y, weight, y, rows, columns, 1e-5);
    return b.read(y);
  });
  conforms(`softmax ${rows} x ${columns}`, 5e-7, async (b) => {
    const x = upload(
      b,
      numbers(rows * columns, 10).map((v) => 30 * v),
    );
    b.softmax(x, rows, columns);
    return b.read(x);
  });
}

conforms("softmax of values whose exponentials overflow", 5e-7, async (b) => {
  const x = upload(b, Float32Array.of(1000, 999, -1000, 998.5, 1e30, 1, 2, 3, 4, 5));
  b.softmax(x, 1, 4);
  return b.read(x, 0, 4);
});

for (const length of [1, 7, 64, 100_003]) {
  conforms(`siluMultiply and add of ${length}`, 5e-7, async (b) => {
    const gate = upload(
      b,
      numbers(length, 11).map((v) => 20 * v),
    );
    b.siluMultiply(gate, upload(b, numbers(length, 12)), length);
    b.add(gate, upload(b, numbers(length, 13)), length);
    return b.read(gate);
  });
}

test("silu is accurate to 5e-7 at every magnitude", async () => {
  const [backend] = wasm;
  const values = Float32Array.from({ length: 4000 }, (_, i) => (i - 2000) / 24.1);
  const gate = upload(backend, values);
  backend.siluMultiply(gate, upload(backend, new Float32Array(4000).fill(1)), 4000);
  const actual = await backend.read(gate);
  values.forEach((x, i) => {
    const expected = x / (1 + Math.exp(-x));
    assert.ok(Math.abs(actual[i] - expected) <= 5e-7 * Math.abs(expected), `silu(${x}) is ${actual[i]}`);
  });
});

test("infinities and NaN are not hidden by silu", async () => {
  const [backend] = wasm;
  const gate = upload(backend, Float32Array.of(Number.NaN, Number.POSITIVE_INFINITY, 1, -200));
  backend.siluMultiply(gate, upload(backend, Float32Array.of(1, 1, 1, 1)), 4);
  const [nan, infinity, , tiny] = await backend.read(gate);
  assert.ok(Number.isNaN(nan));
  assert.equal(infinity, Number.POSITIVE_INFINITY);
  assert.ok(Math.abs(tiny) < 1e-30);
});

conforms("copy between buffers and within one", 0, async (b) => {
  const x = upload(b, numbers(20, 14));
  const y = b.allocate(10);
  b.copy(x, 3, y, 1, 9);
  b.copy(x, 0, x, 2, 18);
  return Float32Array.of(...(await b.read(x)), ...(await b.read(y)));
});

for (const [tokens, heads, headSize, position] of [
  [1, 1, 2, 0],
  [3, 2, 8, 5],
  [2, 3, 20, 1],
  [70, 9, 64, 11],
]) {
  conforms(`rope of ${tokens} tokens, ${heads} heads of ${headSize}, from ${position}`, 2e-7, async (b) => {
    const x = upload(b, numbers(tokens * heads * headSize, 15));
    const angles = numbers(((tokens + position) * headSize) / 2, 16);
    const cosines = upload(b, angles.map(Math.cos));
    const sines = upload(b, angles.map(Math.sin));
    b.rope({ x, cosines, sines, tokens, position, heads, headSize });
    return b.read(x);
  });
}

for (const [rows, m, order] of [
  [1, 1, 1],
  [2, 3, 1],
  [3, 5, 2],
  [1, 1, 64],
  [2, 3, 4],
  [5, 9, 64],
  [3, 43, 32],
  [64, 3, 512],
]) {
  for (const inverse of [false, true]) {
    conforms(`rotate ${rows} rows of ${m} x ${order}${inverse ? " back" : ""}`, 2e-6, async (b) => {
      const columns = m * order;
      const x = upload(b, numbers(rows * columns, 23));
      const signs = upload(
        b,
        numbers(columns, 24).map((v) => (v < 0 ? -1 : 1)),
      );
      const q = upload(b, numbers(m * m, 25));
      const y = b.allocate(rows * columns);
      b.rotate({ x, y, signs, q, m, rows, columns, inverse });
      b.rotate({ x, y: x, signs, q, m, rows, columns, inverse });
      assert.deepEqual(await b.read(x), await b.read(y), "in place");
      return b.read(y);
    });
  }
}

/** The largest odd divisor. */
function oddPart(columns: number): number {
  return columns % 2 === 0 ? oddPart(columns / 2) : columns;
}

function coded(
  b: Backend,
  rows: number,
  columns: number,
  widths: readonly number[],
  interleave: number,
  tailBiting: boolean,
  split = false,
): TrellisWeights {
  const chaining = { rows, interleave, tailBiting };
  const lanes = lanesOf(chaining, b.threads);
  const bytes = (count: number, seed: number) => Uint8Array.from(numbers(count, seed), (v) => (v + 1) * 128);
  const uploadBytes = (data: Uint8Array) => {
    const buffer = b.allocateBytes(data.length);
    b.writeBytes(buffer, data);
    return buffer;
  };
  const distinct = [...new Set(widths)];
  const tables = distinct.reduce((sum, w) => sum + 32 * w, 0);
  let groups = 0;
  for (let column = 0; column < columns; groups++) column += widths[groups % widths.length];
  const codes = bytes(Math.ceil(groups / 2) * rows, 26);
  return {
    rows,
    columns,
    widths,
    steps: lanes.steps,
    tileSteps: lanes.tileSteps,
    codes: b.trellisCodes({
      ...{ stored: codes, codeBits: 4, streams: codes.length / rows, carries: [null], chaining, lanes },
    }),
    rowAt: uploadBytes(new Uint8Array(lanes.rowAt.buffer)),
    positions: positionsOf(lanes, rows),
    tables: upload(b, numbers(tables, 27)),
    scales: upload(b, numbers(rows, 28)),
    maps: uploadBytes(
      bytes(distinct.length * 32, 29).map((u, i) => (split ? u & ((i & 16) === 0 ? 0xf0 : 0x0f) : u)),
    ),
  };
}

for (const [rows, columns, widths, interleave, tailBiting] of [
  [1, 1, [1], 1, false],
  [16, 8, [4], 16, false],
  [50, 37, [4], 16, true],
  [33, 40, [2], 1, true],
  [70, 21, [2], 16, true],
  [70, 21, [1], 1, false],
  [20, 29, [3, 3, 2], 16, false],
  [64, 65, [2, 1], 16, true],
  [10, 30, [2, 2, 1], 16, true],
  [5, 30, [3], 7, true],
  [300, 576, [4], 16, true],
  [2200, 40, [3, 2], 1, true],
  [40, 3100, [3], 1, true],
] as const) {
  const code = `codes of ${widths.join(",")}, S ${interleave}, ${tailBiting ? "cyclic" : "from 0"}`;
  for (const tokens of [1, 2, 11]) {
    conforms(`trellisMatmul ${tokens} x ${rows} x ${columns}, ${code}`, 1e-6, async (b) => {
      const weight = coded(b, rows, columns, widths, interleave, tailBiting);
      const y = b.allocate(tokens * rows);
      b.trellisMatmul(upload(b, numbers(tokens * columns, 30)), weight, y, tokens);
      return b.read(y);
    });
  }
  conforms(`trellisMatmul, approximate, of ${rows} x ${columns}, ${code}`, 1e-3, async (b) => {
    const weight = coded(b, rows, columns, widths, interleave, tailBiting);
    const y = b.allocate(7 * rows);
    const x = numbers(7 * columns, 30);
    // A token of zeros, and one whose size is another.
    for (let c = 0; c < columns; c++) {
      x[c] = 0;
      x[6 * columns + c] *= 1e-9;
    }
    b.trellisMatmul(upload(b, x), weight, y, 7, true);
    const values = await b.read(y);
    return values.map((value, i) => (i < 6 * rows ? value : 1e9 * value));
  });
  conforms(`trellisGather of ${rows} x ${columns}, ${code}`, 2e-7, async (b) => {
    const weight = coded(b, rows, columns, widths, interleave, tailBiting);
    const ids = Int32Array.of(0, rows - 1, rows >> 1, Math.min(17, rows - 1));
    const y = b.allocate(ids.length * columns);
    b.trellisGather(weight, ids, y);
    return b.read(y);
  });
}

// Tables of 13 bits: an error of about 0.1 % of the sums.
for (const [rows, columns, widths, interleave, tailBiting] of [
  [1, 1, [1], 1, false],
  [50, 37, [4], 1, true],
  [33, 40, [2], 1, false],
  [70, 84, [2], 16, true],
  [20, 116, [3, 3, 2], 1, true],
  [64, 65, [2, 1], 16, false],
  [10, 30, [2, 2, 1], 7, true],
  [40, 600, [1], 1, true],
  [5000, 48, [3], 1, true],
  [576, 1536, [2], 1, true],
] as const) {
  const code = `codes of ${widths.join(",")}, S ${interleave}, ${tailBiting ? "cyclic" : "from 0"}`;
  for (const [input, split] of [
    ["plain", true],
    ["norm", true],
    ["up", true],
    ["plain", false],
  ] as const)
    conforms(
      `tokenProducts ${rows} x ${columns}, ${code}, ${split ? "split maps" : "any maps"}, ${input} input`,
      4e-3,
      async (b) => {
        const x = upload(b, numbers(columns, 31));
        const other = upload(b, numbers(columns, 32));
        const m = oddPart(columns);
        const orthogonal = upload(
          b,
          Float32Array.from({ length: m * m }, (_, i) => {
            const angle = (2 * Math.PI * (i % m) * Math.floor(i / m)) / m;
            return (Math.cos(angle) + Math.sin(angle)) / Math.sqrt(m);
          }),
        );
        const signs = upload(
          b,
          numbers(columns, 33).map((v) => (v < 0 ? -1 : 1)),
        );
        const weight = coded(b, rows, columns, widths, interleave, tailBiting, split);
        const y = upload(b, numbers(2 * rows + 4, 34));
        const options = {
          ...{ x, rotation: { signs, q: orthogonal, m } },
          ...(input === "norm" && { norm: { weight: other, epsilon: 1e-5 } }),
          ...(input === "up" && { up: other }),
        };
        const first = { weight, bias: upload(b, numbers(rows, 35)), y, start: 1 };
        const products = b.tokenProducts({ ...options, products: [first, { weight, y, start: rows + 2 }] });
        const added = b.tokenProducts({ ...options, products: [first], accumulate: true });
        for (let run = 0; run < 2; run++) products.run();
        added.run();
        products.free();
        added.free();
        return b.read(y);
      },
    );
}

test("look-up tables show an input that is not a number", async () => {
  const [backend] = wasm;
  const x = upload(backend, Float32Array.of(1, Number.NaN, 0, 2));
  const rotation = {
    signs: upload(backend, new Float32Array(4).fill(1)),
    q: upload(backend, Float32Array.of(1)),
    m: 1,
  };
  const y = backend.allocate(20);
  const weight = coded(backend, 20, 4, [2], 1, true);
  backend.tokenProducts({ x, rotation, products: [{ weight, y }] }).run();
  assert.ok((await backend.read(y)).every(Number.isNaN));
});

for (const backend of [reference, ...wasm]) {
  test(`${backend.name}, ${backend.threads} threads, refuses what does not fit its buffers`, () => {
    const small = backend.allocate(8);
    const big = backend.allocate(64);
    assert.throws(
      () => backend.matmul({ x: small, weight: big, y: big, tokens: 2, inputs: 8, outputs: 8 }),
      RangeError,
    );
    assert.throws(() => backend.add(small, big, 9), RangeError);
    assert.throws(() => backend.write(small, new Float32Array(9)), RangeError);
    assert.throws(() => backend.copy(big, 60, small, 0, 8), RangeError);
    assert.throws(() => backend.gather(big, Int32Array.of(8), 8, small), RangeError);
    assert.throws(() => backend.gather(big, Int32Array.of(-1), 8, small), RangeError);
    assert.throws(() => backend.softmax(new ReferenceBackend().allocate(8), 1, 9), RangeError);
  });
}
