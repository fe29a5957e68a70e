import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, test } from "node:test";
import { buildSafetensorsHeader } from "../checkpoint/safetensors.js";
import { CorruptFileError, InputError, UsageError } from "../errors.js";
import { Random } from "../random.js";
import { readTrainingState, type StateTensor, type TrainingState, writeTrainingState } from "./state.js";

const identity = { model: "model-hash", options: "options-hash" };
const state: TrainingState = {
  step: 3,
  losses: [0.1, 1 / 3, 1e-300],
  heldOut: [
    { step: 0, loss: 2.5 },
    { step: 2, loss: 0.1 + 0.2 },
  ],
};

let folder: string;
let path: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "pocketllm-tune-state-"));
  path = join(folder, "state.safetensors");
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Tensors over arrays that the test can see. */
class Memory implements StateTensor {
  constructor(
    readonly name: string,
    public values: Float32Array,
  ) {}
  get length(): number {
    return this.values.length;
  }
  read(): Float32Array {
    return this.values;
  }
  write(values: Float32Array): void {
    this.values = values;
  }
}

function tensors(seed: number): Memory[] {
  const random = new Random(seed);
  const bits = new Uint32Array(1000).map(() => random.next());
  return [
    // Every kind of bits: subnormals, infinities and NaNs with payloads too.
    new Memory("weight", new Float32Array(bits.buffer)),
    new Memory(
      "adam.mean.weight",
      Float32Array.from({ length: 7 }, () => random.normal()),
    ),
    new Memory("empty", new Float32Array(0)),
  ];
}
const bytesOf = (list: readonly Memory[]) =>
  list.map(({ values }) => Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString("hex"));
const blank = () => tensors(1).map(({ name, length }) => new Memory(name, new Float32Array(length)));

test("byte-exact round trip, and the same bytes for the same state", async () => {
  await writeTrainingState(path, identity, state, tensors(1));
  const read = blank();
  assert.deepEqual(await readTrainingState(path, identity, read), state);
  assert.deepEqual(bytesOf(read), bytesOf(tensors(1)));
  const first = await readFile(path);
  await writeTrainingState(path, identity, state, read);
  assert.deepEqual(await readFile(path), first);
  assert.deepEqual(await readdir(folder), ["state.safetensors"]);
});

test("the state before the first step; no file at all", async () => {
  assert.equal(await readTrainingState(path, identity, blank()), null);
  const start: TrainingState = { step: 0, losses: [], heldOut: [] };
  await writeTrainingState(path, identity, start, []);
  assert.deepEqual(await readTrainingState(path, identity, []), start);
});

test("a write that fails half-way, and a half-written file beside it, leave the older state", async () => {
  await writeTrainingState(path, identity, state, tensors(1));
  const failing: StateTensor = {
    name: "last",
    length: 4,
    read: () => Promise.reject(new Error("out of memory")),
    write: () => {},
  };
  await assert.rejects(writeTrainingState(path, identity, state, [...tensors(2), failing]), /out of memory/);
  const short: StateTensor = { ...failing, read: () => new Float32Array(3) };
  await assert.rejects(writeTrainingState(path, identity, state, [...tensors(2), short]), RangeError);
  assert.deepEqual(await readdir(folder), ["state.safetensors"]);
  await writeFile(`${path}.partial`, "half of a");
  const read = blank();
  assert.deepEqual(await readTrainingState(path, identity, read), state);
  assert.deepEqual(bytesOf(read), bytesOf(tensors(1)));
  await writeTrainingState(path, identity, { ...state, step: 4 }, tensors(2));
  assert.equal((await readTrainingState(path, identity, read))?.step, 4);
  assert.deepEqual(bytesOf(read), bytesOf(tensors(2)));
  assert.deepEqual(await readdir(folder), ["state.safetensors"]);
});

describe("refused, in one line, with no tensor touched", () => {
  async function refuses(
    kind: typeof InputError,
    message: RegExp,
    { wanted = identity, list = blank() }: { wanted?: typeof identity; list?: Memory[] } = {},
  ): Promise<void> {
    const before = bytesOf(list);
    await assert.rejects(readTrainingState(path, wanted, list), (error: unknown) => {
      assert.ok(error instanceof kind, String(error));
      assert.match(error.message, message);
      assert.ok(!error.message.includes("\n"));
      return true;
    });
    assert.deepEqual(bytesOf(list), before);
  }
  beforeEach(() => writeTrainingState(path, identity, state, tensors(1)));

  test("another model, other options", async () => {
    await refuses(UsageError, /another model/, { wanted: { ...identity, model: "x" } });
    await refuses(UsageError, /other options or data/, { wanted: { ...identity, options: "x" } });
  });

  test("cut short anywhere", async () => {
    const { length } = await readFile(path);
    for (const size of [length - 1, length - 33, length - 2000, 300, 8, 7, 0]) {
      await truncate(path, size);
      await refuses(CorruptFileError, /damaged or cut short/);
    }
  });

  test("a byte changed anywhere", async () => {
    const whole = await readFile(path);
    for (let at = 0; at < whole.length; at += at < 500 ? 1 : 97) {
      const changed = Buffer.from(whole);
      changed[at] ^= 1;
      await writeFile(path, changed);
      await refuses(CorruptFileError, /damaged or cut short|is not a training state/);
    }
    await writeFile(path, Buffer.concat([whole, Buffer.from("x")]));
    await refuses(CorruptFileError, /damaged or cut short/);
  });

  test("other tensors: one more, one less, another length", async () => {
    const more = [...blank(), new Memory("more", new Float32Array(1))];
    await refuses(CorruptFileError, /no tensor "more"/, { list: more });
    await refuses(CorruptFileError, /the run has no tensor "empty"/, { list: blank().slice(0, 2) });
    const longer = blank();
    longer[1].values = new Float32Array(8);
    await refuses(CorruptFileError, /"adam.mean.weight" is F32 \[7\] where the run has F32 \[8\]/, {
      list: longer,
    });
  });

  test("files made by hand, with a hash that fits", async () => {
    type Entry = { name: string; dtype: "F64" | "F32" | "U8"; shape: number[] };
    const make = async (about: string | null, entries: Entry[]) => {
      const header = buildSafetensorsHeader(
        [...entries, { name: "sha256", dtype: "U8", shape: [32] }],
        about === null ? {} : { pocketllm_training_state: about },
      );
      const size = { F64: 8, F32: 4, U8: 1 };
      const data = entries.map(({ dtype, shape }) =>
        Buffer.alloc(shape.reduce((product, n) => product * n, size[dtype])),
      );
      const body = Buffer.concat([header, ...data]);
      await writeFile(path, Buffer.concat([body, createHash("sha256").update(body).digest()]));
    };
    const history: Entry[] = [
      { name: "history.losses", dtype: "F64", shape: [1] },
      { name: "history.held_out", dtype: "F64", shape: [0, 2] },
    ];
    const about = (change: object) => JSON.stringify({ ...identity, version: 1, step: 1, ...change });
    const list: Memory[] = [];
    await make(about({}), history);
    assert.equal(
      (await readTrainingState(path, identity, list))?.step,
      1,
      "the maker of these files is right",
    );
    await make(null, history);
    await refuses(CorruptFileError, /is not a training state/, { list });
    await make("{", history);
    await refuses(CorruptFileError, /damaged/, { list });
    await make("[]", history);
    await refuses(CorruptFileError, /is not an object/, { list });
    await make(about({ version: 2 }), history);
    await refuses(InputError, /version 2/, { list });
    for (const step of [-1, 0.5, "1", null]) {
      await make(about({ step }), history);
      await refuses(CorruptFileError, /step is /, { list });
    }
    await make(about({ model: 1 }), history);
    await refuses(CorruptFileError, /model is not a string/, { list });
    await make(about({}), history.slice(1));
    await refuses(CorruptFileError, /history.losses/, { list });
    await make(about({}), [history[0], { ...history[1], shape: [4] }]);
    await refuses(CorruptFileError, /loss history/, { list });
  });

  test("a folder in its place", async () => {
    path = folder;
    await refuses(InputError, /not a regular file/);
  });
});
