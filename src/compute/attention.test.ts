/** Attention and its caches, over every backend. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Backend, Buffer } from "./backend.js";
import { conforms, numbers, upload, wasm } from "./conforming.test.util.js";
import { type PackedFormat, packedRowBytes } from "./kv-format.js";

for (const [tokens, position, heads, kvHeads, headSize, window] of [
  [1, 0, 1, 1, 8, null],
  [1, 200, 9, 3, 64, null],
  [5, 60, 4, 2, 16, null],
  [33, 0, 6, 2, 32, null],
  [130, 7, 3, 3, 24, null],
  [40, 70, 4, 4, 128, null],
  [9, 3, 2, 1, 10, null],
  [100, 30, 4, 2, 16, 1],
  [100, 30, 4, 2, 16, 50],
  [1, 300, 4, 2, 16, 70],
  [70, 64, 4, 1, 64, 64],
] as const) {
  const shape = `${tokens} tokens from ${position}, ${heads}/${kvHeads} heads of ${headSize}, window ${window}`;
  conforms(`attention: ${shape}`, 2e-6, async (b) => {
    const query = upload(
      b,
      numbers(tokens * heads * headSize, 17).map((v) => 4 * v),
    );
    const positions = position + tokens;
    const keys = upload(b, numbers(positions * kvHeads * headSize, 18));
    const values = upload(b, numbers(positions * kvHeads * headSize, 19));
    const y = b.allocate(tokens * heads * headSize);
    const scale = 1 / Math.sqrt(headSize);
    b.attention({ query, keys, values, y, tokens, position, heads, kvHeads, headSize, scale, window });
    return b.read(y);
  });
}

for (const format of ["f16", "int8"] as const) {
  for (const [tokens, kvHeads, headSize] of [
    [1, 1, 2],
    [3, 2, 10],
    [70, 3, 64],
    [600, 2, 8],
  ]) {
    conforms(`${format} rows: ${tokens} tokens, ${kvHeads} heads of ${headSize}`, 0, async (b) => {
      // Normal, subnormal, zero and too large halves, and ties between two of them.
      const special = [
        0,
        -0,
        1e-8,
        2 ** -24,
        -(2 ** -14),
        3e-5,
        65504,
        65519,
        65520,
        -1e9,
        1 + 2 ** -11,
        2049,
      ];
      const data = numbers(tokens * kvHeads * headSize, 40).map((v, i) =>
        i % 7 === 0 ? special[(i / 7) % special.length] : v,
      );
      const x = upload(b, data);
      const position = 5;
      const bytes = (position + tokens) * kvHeads * packedRowBytes(format, headSize);
      const rows = { cache: b.allocateBytes(bytes), format, position, kvHeads, headSize };
      b.packRows({ ...rows, x, tokens });
      const y = b.allocate(data.length);
      b.unpackRows({ ...rows, x: y, tokens });
      return b.read(y);
    });
  }
  for (const [tokens, position, heads, kvHeads, headSize, window] of [
    [1, 200, 9, 3, 64, null],
    [1, 63, 4, 4, 16, null],
    [33, 30, 6, 2, 32, null],
    [9, 3, 2, 1, 10, null],
    [100, 30, 4, 2, 16, 50],
    [1, 300, 8, 1, 128, 70],
  ] as const) {
    const shape = `${tokens} tokens from ${position}, ${heads}/${kvHeads} heads of ${headSize}, window ${window}`;
    conforms(`attention over ${format}: ${shape}`, 2e-6, async (b) => {
      const query = upload(b, numbers(tokens * heads * headSize, 41));
      const all = { format, tokens: position + tokens, position: 0, kvHeads, headSize };
      const packed = (seed: number) => {
        const cache = b.allocateBytes(all.tokens * kvHeads * packedRowBytes(format, headSize));
        b.packRows({ ...all, x: upload(b, numbers(all.tokens * kvHeads * headSize, seed)), cache });
        return cache;
      };
      const y = b.allocate(tokens * heads * headSize);
      const sizes = { tokens, position, heads, kvHeads, headSize, scale: 0.3, window };
      b.attention({ query, keys: packed(42), values: packed(43), y, packed: format, ...sizes });
      return b.read(y);
    });
  }
}

for (const size of [3e4, 3e5])
  conforms(`attention over f16 of queries of ${size}`, 2e-6, async (b) => {
    const [position, heads, kvHeads, headSize] = [100, 6, 2, 16];
    const query = upload(
      b,
      numbers(heads * headSize, 41).map((v) => size * v),
    );
    const past = { format: "f16", tokens: position + 1, position: 0, kvHeads, headSize } as const;
    const packed = (seed: number) => {
      const cache = b.allocateBytes(past.tokens * kvHeads * packedRowBytes("f16", headSize));
      // Some keys are subnormal halves.
      const data = numbers(past.tokens * kvHeads * headSize, seed).map((v, i) => (i % 3 ? v : 4e-5 * v));
      b.packRows({ ...past, x: upload(b, data), cache });
      return cache;
    };
    const y = b.allocate(heads * headSize);
    const sizes = { tokens: 1, position, heads, kvHeads, headSize, scale: 1, window: null };
    b.attention({ query, keys: packed(42), values: packed(43), y, packed: "f16", ...sizes });
    return b.read(y);
  });

for (const packed of ["f16", "int8"] as const)
  test(`attention over ${packed} of one token is the same as in a batch, whatever the group of heads`, async () => {
    const [backend] = wasm;
    for (const [heads, kvHeads, headSize] of [
      [6, 2, 32],
      [2, 2, 64],
      [9, 3, 64],
      [8, 4, 24],
      [4, 1, 16],
      [7, 1, 16],
    ]) {
      const tokens = 90;
      const queries = numbers(tokens * heads * headSize, 45);
      const cache = backend.allocateBytes(tokens * kvHeads * packedRowBytes(packed, headSize));
      const x = upload(backend, numbers(tokens * kvHeads * headSize, 46));
      backend.packRows({ x, cache, format: packed, tokens, position: 0, kvHeads, headSize });
      const y = backend.allocate(queries.length);
      const shape = { keys: cache, values: cache, packed, y, heads, kvHeads, headSize } as const;
      const rest = { scale: 0.2, window: null };
      backend.attention({ query: upload(backend, queries), tokens, position: 0, ...shape, ...rest });
      const batch = await backend.read(y);
      const size = heads * headSize;
      for (const t of [0, 1, 63, 64, 89]) {
        const query = upload(backend, queries.subarray(t * size, (t + 1) * size));
        backend.attention({ query, tokens: 1, position: t, ...shape, ...rest });
        assert.deepEqual(await backend.read(y, 0, size), batch.slice(t * size, (t + 1) * size));
      }
    }
  });

test("attention of one token is the same as in a batch", async () => {
  const [tokens, heads, kvHeads, headSize] = [90, 6, 2, 32];
  const [backend] = wasm;
  const queries = numbers(tokens * heads * headSize, 20);
  const keys = upload(backend, numbers(tokens * kvHeads * headSize, 21));
  const values = upload(backend, numbers(tokens * kvHeads * headSize, 22));
  const y = backend.allocate(queries.length);
  const shape = { keys, values, y, heads, kvHeads, headSize, scale: 0.2, window: null };
  backend.attention({ query: upload(backend, queries), tokens, position: 0, ...shape });
  const batch = await backend.read(y);
  const size = heads * headSize;
  for (const t of [0, 1, 63, 64, 89]) {
    const query = upload(backend, queries.subarray(t * size, (t + 1) * size));
    backend.attention({ query, tokens: 1, position: t, ...shape });
    assert.deepEqual(await backend.read(y, 0, size), batch.slice(t * size, (t + 1) * size));
  }
});

for (const [heads, kvHeads, headSize, window] of [
  [9, 3, 64, null],
  [4, 4, 10, 20],
  [12, 2, 16, null],
] as const) {
  const shape = { heads, kvHeads, headSize, scale: 0.3, window };
  const columns = kvHeads * headSize;
  const places = [
    { format: "f32", position: 70 },
    { format: "f16", position: 0 },
    { format: "int8", position: 33 },
    { format: "f16", position: 129 },
  ] as const;
  const rows = { x: heads * headSize * places.length, kv: columns * places.length };

  /** Sequences with their past, and the row of each that is new. */
  const start = (b: Backend) => {
    const cache = (format: "f32" | PackedFormat, position: number, seed: number) => {
      const past = upload(b, numbers((position + 1) * columns, seed));
      if (format === "f32") return past;
      const bytes = b.allocateBytes((position + 1) * kvHeads * packedRowBytes(format, headSize));
      b.packRows({ x: past, cache: bytes, format, tokens: position + 1, position: 0, kvHeads, headSize });
      return bytes;
    };
    return {
      query: upload(b, numbers(rows.x, 51)),
      key: upload(b, numbers(rows.kv, 52)),
      value: upload(b, numbers(rows.kv, 53)),
      y: b.allocate(rows.x),
      sequences: places.map(({ format, position }, i) => ({
        keys: cache(format, position, 60 + i),
        values: cache(format, position, 70 + i),
        packed: format === "f32" ? undefined : format,
        position,
      })),
    };
  };

  const name = `${heads}/${kvHeads} heads of ${headSize}, window ${window}`;
  conforms(`attendEach: ${name}`, 2e-6, async (b) => {
    const { sequences, ...given } = start(b);
    b.attendEach({ ...given, sequences, ...shape });
    return b.read(given.y);
  });

  test(`attendEach is packRows and attention: ${name}`, async () => {
    for (const b of wasm) {
      const { query, key, value, y, sequences } = start(b);
      b.attendEach({ query, key, value, y, sequences, ...shape });
      const together = await b.read(y);
      for (const [i, { position, packed, ...cache }] of start(b).sequences.entries()) {
        const row = async (buffer: Buffer, size: number) => upload(b, await b.read(buffer, i * size, size));
        for (const [from, to] of [
          [key, cache.keys],
          [value, cache.values],
        ] as const) {
          const x = await row(from, columns);
          const at = { tokens: 1, position, kvHeads, headSize };
          if (packed && "byteLength" in to) b.packRows({ x, cache: to, format: packed, ...at });
          else if ("length" in to) b.copy(x, 0, to, position * columns, columns);
        }
        const one = b.allocate(heads * headSize);
        const q = await row(query, heads * headSize);
        b.attention({ query: q, ...cache, packed, y: one, tokens: 1, position, ...shape });
        assert.deepEqual(
          together.subarray(i * one.length, (i + 1) * one.length),
          await b.read(one),
          `sequence ${i}`,
        );
      }
    }
  });
}

test("attendEach refuses rows and caches that are too short", () => {
  for (const b of wasm) {
    const shape = { heads: 2, kvHeads: 1, headSize: 8, scale: 1, window: null };
    const [query, y, kv] = [b.allocate(32), b.allocate(32), b.allocate(16)];
    const cache = b.allocate(8 * 4);
    const run = (count: number, position: number) => {
      const sequences = Array.from({ length: count }, () => ({ keys: cache, values: cache, position }));
      b.attendEach({ query, key: kv, value: kv, y, sequences, ...shape });
    };
    run(2, 3);
    assert.throws(() => run(2, 4), /attention keys needs 40 elements and has 32/);
    assert.throws(() => run(3, 0), /attendEach query needs 48 elements and has 32/);
  }
});
