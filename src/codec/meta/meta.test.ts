import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ReferenceBackend } from "../../compute/reference/backend.js";
import { WasmRuntime } from "../../compute/wasm/runtime.js";
import { CorruptFileError, InputError } from "../../errors.js";
import { Random } from "../../random.js";
import { f32ToBytes } from "../../tensor/dtype.js";
import { type CodedMatrix, codedBytes, type StoredTensor } from "../coded.js";
import { decodeMeta, metaLinear, validateMeta } from "./decode.js";
import { encodeMeta, relativeError } from "./encode.js";
import { gelu } from "./gelu.js";
import { groupSubVectors } from "./groups.js";
import { chooseK, type MetaOptions, metaBits, type Rln } from "./options.js";

let runtime: WasmRuntime;
before(async () => {
  runtime = await WasmRuntime.create({ threads: 2 });
});
after(() => runtime.close());

const [ROWS, COLUMNS] = [96, 64];
const QUICK: Partial<MetaOptions> = { d: 4, k: 64, epochs: 20, batch: 256, decayEpochs: 8 };

/** Rows of different scale and mean, as real matrices have them. */
function matrix(seed: number, rows = ROWS, columns = COLUMNS): Float32Array {
  const random = new Random(seed);
  const out = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    const scale = 0.05 * Math.exp(0.5 * random.normal());
    const mean = 0.01 * random.normal();
    for (let column = 0; column < columns; column++)
      out[row * columns + column] = mean + scale * random.normal();
  }
  return out;
}

function encode(options: Partial<MetaOptions> = {}, seed = 0, weights = matrix(1)) {
  return encodeMeta(runtime, {
    weights,
    rows: ROWS,
    columns: COLUMNS,
    options: { ...QUICK, ...options },
    seed,
  });
}

function withTensor(coded: CodedMatrix, suffix: string, change: Partial<StoredTensor>): CodedMatrix {
  const tensors = new Map(coded.tensors);
  tensors.set(suffix, { ...coded.tensors.get(suffix)!, ...change });
  return { ...coded, tensors };
}

test("gelu is x Phi(x)", () => {
  // Values of x * Phi(x) from tables of the normal distribution.
  for (const [x, phi] of [
    [0, 0.5],
    [1, 0.841344746],
    [-1, 0.158655254],
    [2, 0.977249868],
    [-3, 0.001349898],
    [4.5, 0.999996602],
    [8, 1],
  ])
    assert.ok(Math.abs(gelu(x) - x * phi) < 3e-6, `gelu(${x}) = ${gelu(x)}`);
});

test("groups cover every sub-vector once", () => {
  for (const rln of ["rows", "columns", "off"] as Rln[]) {
    const { members, starts } = groupSubVectors(50, 16, rln);
    assert.deepEqual(
      [...members].sort((a, b) => a - b),
      Array.from({ length: 800 }, (_, i) => i),
    );
    assert.equal(starts[0], 0);
    assert.equal(starts.at(-1), 800);
  }
  const { members, starts } = groupSubVectors(50, 16, "columns");
  // round(50 / 16) = 3 parts of 16 or 17 rows for each of the 16 column positions.
  assert.equal(starts.length - 1, 48);
  assert.deepEqual(
    [...members.subarray(0, starts[1])],
    Array.from({ length: 16 }, (_, row) => 16 * row),
  );
});

for (const rln of ["rows", "columns", "off"] as Rln[]) {
  for (const groupScale of [true, false]) {
    test(`rln ${rln}, group scale ${groupScale}: error as measured, size as predicted`, async () => {
      const weights = matrix(1);
      const { coded, squaredError } = await encode({ rln, groupScale });
      const decoded = decodeMeta(coded);
      assert.equal(relativeError(weights, decoded), squaredError);
      assert.ok(squaredError > 0.01 && squaredError < 0.9, `error ${squaredError}`);
      assert.equal(
        8 * codedBytes(coded),
        metaBits(ROWS, COLUMNS, { ...QUICK, rln, groupScale }) * weights.length,
      );
      assert.deepEqual(decodeMeta(coded), decoded);
    });
  }
}

test("the same seed gives the same bytes, on one thread or two; another seed does not", async () => {
  const bytes = (coded: CodedMatrix) => [...coded.tensors].map(([suffix, { data }]) => [suffix, [...data]]);
  const weights = matrix(2);
  const options = { ...QUICK, batch: 2048 };
  const first = await encodeMeta(runtime, { weights, rows: ROWS, columns: COLUMNS, options, seed: 7 });
  const single = await WasmRuntime.create({ threads: 1 });
  try {
    const again = await encodeMeta(single, { weights, rows: ROWS, columns: COLUMNS, options, seed: 7 });
    assert.deepEqual(bytes(again.coded), bytes(first.coded));
    const other = await encodeMeta(single, { weights, rows: ROWS, columns: COLUMNS, options, seed: 8 });
    assert.notDeepEqual(bytes(other.coded), bytes(first.coded));
  } finally {
    await single.close();
  }
});

test("training lowers the error, below that of a random codebook", async () => {
  const errors: number[] = [];
  const weights = matrix(3);
  const { squaredError } = await encodeMeta(runtime, {
    weights,
    rows: ROWS,
    columns: COLUMNS,
    options: QUICK,
    onProgress: ({ detail }) => errors.push(Number(detail?.split(" ")[1])),
  });
  assert.equal(errors.length, QUICK.epochs);
  assert.ok(errors.at(-1)! < 0.8 * errors[0], `epochs: ${errors}`);
  const untrained = await encode({ learningRate: 0, epochs: 1 }, 0, weights);
  assert.ok(
    squaredError < 0.75 * untrained.squaredError,
    `${squaredError} against ${untrained.squaredError}`,
  );
});

test("a constant matrix and a zero matrix come out as they are", async () => {
  for (const value of [0, 0.25]) {
    const weights = new Float32Array(ROWS * COLUMNS).fill(value);
    const { coded, squaredError } = await encode({ epochs: 2 }, 0, weights);
    assert.ok(squaredError < 1e-6, `error ${squaredError}`);
    assert.ok(decodeMeta(coded).every((w) => Math.abs(w - value) < 1e-3));
  }
});

test("an abort ends training with its reason and frees the memory", async () => {
  const before = runtime.bytesInUse;
  const abort = new AbortController();
  const reason = new InputError("interrupted");
  await assert.rejects(
    encodeMeta(runtime, {
      weights: matrix(1),
      rows: ROWS,
      columns: COLUMNS,
      options: QUICK,
      signal: abort.signal,
      onProgress: () => abort.abort(reason),
    }),
    (error) => error === reason,
  );
  assert.equal(runtime.bytesInUse, before);
});

test("impossible options are refused by name", async () => {
  const refused: [Partial<MetaOptions>, RegExp][] = [
    [{ d: 5 }, /d must be 4 or 8/],
    [{ k: 100 }, /k must be a power of two/],
    [{ k: 2 ** 17 }, /k must be a power of two/],
    [{ k: 4096 }, /choose a smaller k/],
    [{ rln: "diagonal" as Rln }, /unknown rln "diagonal"/],
    [{ epochs: 0 }, /epochs must be/],
    [{ learningRate: Number.NaN }, /learningRate must be/],
  ];
  for (const [options, message] of refused)
    await assert.rejects(
      encode(options),
      (error) => error instanceof InputError && message.test(error.message),
    );
  const weights = matrix(1);
  weights[17] = Number.NaN;
  await assert.rejects(encode({}, 0, weights), /not finite/);
});

test("chooseK stays within the target and uses what it can", () => {
  const chosen = chooseK(576, 576, 2);
  assert.ok(chosen.bits <= 2 && chosen.bits === metaBits(576, 576, chosen));
  assert.ok(metaBits(576, 576, { ...chosen, k: 2 * chosen.k }) > 2);
  // A large matrix affords long sub-vectors and a large codebook, a small one at the same bits does not.
  assert.deepEqual({ ...chooseK(4096, 4096, 2), bits: 0 }, { d: 8, k: 16384, bits: 0 });
  assert.ok(chooseK(128, 128, 2).k < 256);
  assert.throws(() => chooseK(16, 16, 2), /does not fit into 2 bits/);
});

test("hostile parameters and tensors are refused before anything is allocated for them", async () => {
  const { coded } = await encode({ epochs: 1 });
  const parameters = (change: CodedMatrix["parameters"]) => ({
    ...coded,
    parameters: { ...coded.parameters, ...change },
  });
  const bytes = (suffix: string) => coded.tensors.get(suffix)!.data;
  const without = new Map(coded.tensors);
  without.delete("decoder");
  const more = new Map(coded.tensors).set("extra", coded.tensors.get("decoder")!);
  const infinite = bytes("codebook").slice();
  infinite[1] = 0x7c;
  const negative = bytes("statistics").slice();
  negative[3] |= 0x80;
  const hostile: [string, CodedMatrix, RegExp][] = [
    ["another method", { ...coded, method: "trellis" }, /not "meta"/],
    ["rows of 2^60", { ...coded, rows: 2 ** 60 }, /impossible matrix size/],
    ["no columns", { ...coded, columns: 0 }, /impossible matrix size/],
    ["fractional rows", { ...coded, rows: 1.5 }, /impossible matrix size/],
    ["k of 2^40", parameters({ k: 2 ** 40 }), /k must be/],
    ["k a string", parameters({ k: "64" }), /k must be/],
    ["huge network", parameters({ hidden: 2 ** 30 }), /hidden must be/],
    ["many blocks", parameters({ blocks: 1e9 }), /blocks must be/],
    ["unknown rln", parameters({ rln: "both" }), /unknown rln/],
    ["group scale a number", parameters({ groupScale: 1 }), /groupScale must be/],
    ["more rows than codes", { ...coded, rows: ROWS * 2 }, /"codes" is/],
    ["missing tensor", { ...coded, tensors: without }, /3 tensors, not 4/],
    ["extra tensor", { ...coded, tensors: more }, /5 tensors, not 4/],
    ["other dtype", withTensor(coded, "codebook", { dtype: "BF16" }), /"codebook" is BF16/],
    ["short data", withTensor(coded, "codes", { data: bytes("codes").subarray(1) }), /"codes" has/],
    ["infinite entry", withTensor(coded, "codebook", { data: infinite }), /not finite/],
    ["negative 1/sigma", withTensor(coded, "statistics", { data: negative }), /not positive/],
  ];
  for (const [what, matrix, message] of hostile)
    assert.throws(
      () => decodeMeta(matrix, "model.layers.3.mlp.up_proj"),
      (error) =>
        error instanceof CorruptFileError &&
        message.test(error.message) &&
        error.message.startsWith("model.layers.3.mlp.up_proj: "),
      what,
    );
  assert.equal(validateMeta(coded).k, 64);
});

test("finite numbers that overflow in the decoder are refused", async () => {
  const { coded } = await encode({ epochs: 1, rln: "off" });
  const decoder = coded.tensors.get("decoder")!.data.slice();
  for (let i = 0; i < decoder.length; i += 2) decoder.set([0xff, 0x7b], i);
  const statistics = coded.tensors.get("statistics")!.data.slice();
  statistics.set([1, 0], 2);
  const overflowing = withTensor(withTensor(coded, "decoder", { data: decoder }), "statistics", {
    data: statistics,
  });
  assert.throws(() => decodeMeta(overflowing), /decodes to weights that are not finite/);
});

test("a Linear multiplies by the decoded weights and adds the bias", async () => {
  const { coded } = await encode({ epochs: 1 });
  const backend = new ReferenceBackend();
  const bias = new Float32Array(ROWS).map((_, i) => i / 10);
  const linear = metaLinear(backend, coded, bias);
  const x = matrix(5, 2, COLUMNS);
  const [input, output] = [backend.allocate(x.length), backend.allocate(2 * ROWS)];
  backend.write(input, x);
  linear.forward(input, output, 2);
  const decoded = decodeMeta(coded);
  (await backend.read(output)).forEach((value, i) => {
    let expected = bias[i % ROWS];
    for (let c = 0; c < COLUMNS; c++)
      expected += decoded[(i % ROWS) * COLUMNS + c] * x[Math.floor(i / ROWS) * COLUMNS + c];
    assert.ok(Math.abs(value - expected) < 1e-5, `output ${i}: ${value} instead of ${expected}`);
  });
});

test("decoding needs nothing but the stored tensors: a hand-made matrix", () => {
  // One block of zeros adds its bias only: every weight is mean + (entry-independent) bias / inverse.
  const d = 4;
  const coded: CodedMatrix = {
    method: "meta",
    rows: 2,
    columns: 8,
    parameters: { d, k: 16, hidden: 1, blocks: 1, rln: "off", groupScale: false },
    tensors: new Map<string, StoredTensor>([
      ["codes", { dtype: "U8", shape: [2], data: Uint8Array.of(0x21, 0x43) }],
      ["codebook", { dtype: "F16", shape: [16, d], data: f32ToBytes(new Float32Array(64).fill(1), "F16") }],
      // W1 [1, 4], b1 [1], W2 [4, 1], b2 [4]
      [
        "decoder",
        {
          dtype: "F16",
          shape: [13],
          data: f32ToBytes(Float32Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4), "F16"),
        },
      ],
      ["statistics", { dtype: "F16", shape: [1, 2], data: f32ToBytes(Float32Array.of(0.5, 2), "F16") }],
    ]),
  };
  assert.deepEqual([...decodeMeta(coded)], Array(4).fill([1, 1.5, 2, 2.5]).flat());
});
