/** Memory, threads, errors and the end of a runtime. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { InputError } from "../../errors.js";
import { WasmRuntime } from "./runtime.js";

async function withRuntime(threads: number, use: (runtime: WasmRuntime) => Promise<void>): Promise<void> {
  const runtime = await WasmRuntime.create({ threads });
  try {
    await use(runtime);
  } finally {
    await runtime.close();
  }
}

test("memory is zeroed, also when it is used again and when it has grown", () =>
  withRuntime(1, async (runtime) => {
    const first = runtime.allocate(1000);
    const early = runtime.f32(first, 250);
    early.fill(1);
    const big = runtime.allocate(50 * 2 ** 20);
    assert.ok(runtime.u8(big, 50 * 2 ** 20).every((byte) => byte === 0));
    early[3] = 7;
    assert.equal(runtime.f32(first, 250)[3], 7, "a view made before growth still shows the memory");
    runtime.free(first);
    const again = runtime.allocate(1000);
    assert.equal(again, first);
    assert.ok(runtime.f32(again, 250).every((value) => value === 0));
    runtime.free(again);
    runtime.free(big);
    assert.equal(runtime.bytesInUse, 0);
  }));

test("exhausted memory is one clear line that names the sizes, and leaves the runtime usable", async () => {
  const runtime = await WasmRuntime.create({ threads: 1, maximumBytes: 32 * 2 ** 20 });
  runtime.allocate(2 ** 20);
  assert.throws(
    () => runtime.allocate(64 * 2 ** 20),
    (error: Error) =>
      error instanceof InputError && /64 MiB asked for, 1\.00 MiB in use, limit 32 MiB/.test(error.message),
  );
  runtime.allocate(20 * 2 ** 20);
  await runtime.close();
});

test("options out of range are refused", async () => {
  for (const options of [{ threads: 0 }, { threads: 1.5 }, { threads: 1000 }, { maximumBytes: 1 }])
    await assert.rejects(WasmRuntime.create(options), InputError);
});

test("parallel runs each list on a thread, over memory above 2 GiB too", () =>
  withRuntime(3, async (runtime) => {
    const low = runtime.allocate(3 * 4096);
    for (let round = 0; round < 200; round++) {
      runtime.parallel(
        "fill",
        [0, 1, 2].map((t) => [low + 4096 * t, 1024, round + t]),
      );
      for (let t = 0; t < 3; t++) assert.ok(runtime.f32(low + 4096 * t, 1024).every((v) => v === round + t));
    }
    const huge = runtime.allocate(2.25 * 2 ** 30);
    const top = huge + 2.25 * 2 ** 30 - 4096;
    assert.ok(top > 2 ** 31);
    runtime.parallel("fill", [
      [low, 16, 5],
      [top, 16, 6],
    ]);
    assert.equal(runtime.f32(top, 16)[15], 6);
  }));

test("a worker wakes whenever either side fell asleep around the other", () =>
  withRuntime(2, async (runtime) => {
    const numbers = 2 ** 20;
    const pointer = runtime.allocate(4 * numbers);
    const late = setTimeout(() => assert.fail("a job was never begun"), 20_000);
    for (let round = 0; round < 400; round++) {
      // The worker has 64 times as much to do, up to a millisecond: its owner sleeps while it ends.
      const length = (numbers >> 6) * (1 + (round % 64));
      runtime.parallel("fill", [
        [pointer, 16, round],
        [pointer, length, round],
      ]);
      // 0 to 0.4 ms, around the time after which the worker sleeps; only it can do what is submitted.
      const end = performance.now() + (round % 9) * 0.05;
      while (performance.now() < end);
      await runtime.submit("fill", [pointer, 16, -round]);
      assert.equal(runtime.f32(pointer, 1)[0], -round);
    }
    clearTimeout(late);
  }));

test("before its workers have started a runtime computes on this thread", async () => {
  const runtime = await WasmRuntime.create({ threads: 3, early: true });
  const pointer = runtime.allocate(192);
  const fill = (round: number) => {
    runtime.parallel(
      "fill",
      [0, 1, 2].map((t) => [pointer + 64 * t, 16, round + t]),
    );
    for (let t = 0; t < 3; t++) assert.equal(runtime.f32(pointer + 64 * t, 16)[15], round + t);
  };
  // No message of a worker can have come before this thread has waited for anything.
  for (let round = 0; round < 50; round++) fill(round);
  await runtime.submit("fill", [pointer, 16, -1]);
  assert.equal(runtime.f32(pointer, 1)[0], -1);
  await runtime.started();
  fill(100);
  await runtime.close();
});

test("a runtime that is closed while its workers start ends", async () => {
  const runtime = await WasmRuntime.create({ threads: 3, early: true });
  const refused = assert.rejects(runtime.started(), /closed/);
  await runtime.close();
  await refused;
});

test("an idle worker wakes from its sleep", () =>
  withRuntime(2, async (runtime) => {
    const pointer = runtime.allocate(64);
    for (let round = 1; round <= 5; round++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      runtime.parallel("fill", [
        [pointer, 1, round],
        [pointer + 4, 1, round],
      ]);
      assert.deepEqual([...runtime.f32(pointer, 2)], [round, round]);
    }
  }));

test("a trap in a worker or here throws its message, and the runtime goes on", () =>
  withRuntime(2, async (runtime) => {
    const pointer = runtime.allocate(64);
    assert.throws(() => runtime.parallel("trap", [[], []]), /trap: .*unreachable/);
    assert.throws(
      () =>
        runtime.parallel("fill", [
          [pointer, 1, 1],
          [2 ** 31, 64, 1],
        ]),
      /fill: .*out of bounds/,
    );
    await assert.rejects(runtime.submit("trap", []), /trap: .*unreachable/);
    runtime.parallel("fill", [
      [pointer, 1, 3],
      [pointer + 4, 1, 4],
    ]);
    assert.deepEqual([...runtime.f32(pointer, 2)], [3, 4]);
  }));

test("unknown kernels, too many parts and too many arguments are refused", () =>
  withRuntime(2, async (runtime) => {
    assert.throws(() => runtime.parallel("no such", [[]]), /no kernel is named no such/);
    assert.throws(() => runtime.parallel("nothing", [[], [], []]), RangeError);
    assert.throws(() => runtime.parallel("nothing", [new Array(33).fill(0)]), RangeError);
    await assert.rejects(runtime.submit("no such", []), /no kernel is named no such/);
  }));

for (const threads of [1, 3]) {
  test(`submitted jobs run on workers of ${threads} threads while this one is free`, () =>
    withRuntime(threads, async (runtime) => {
      const jobs = 20;
      const pointer = runtime.allocate(4 * jobs);
      const order: number[] = [];
      const submitted = Array.from({ length: jobs }, async (_, i) => {
        await runtime.submit("fill", [pointer + 4 * i, 1, i]);
        order.push(i);
      });
      if (threads > 1)
        assert.throws(() => runtime.parallel("nothing", [[], []]), /20 submitted jobs are pending/);
      await Promise.all(submitted);
      assert.deepEqual([...runtime.f32(pointer, jobs)], [...Array(jobs).keys()]);
      if (threads === 1) assert.deepEqual(order, [...Array(jobs).keys()], "first come, first served");
      runtime.parallel(
        "nothing",
        Array.from({ length: threads }, () => []),
      );
    }));
}

test("an aborted signal drops jobs that have not started; the one that runs ends first", () =>
  withRuntime(1, async (runtime) => {
    const count = 60_000_000;
    const pointer = runtime.allocate(4 * count);
    await runtime.submit("nothing", []);
    const abort = new AbortController();
    const running = runtime.submit("fill", [pointer, count, 1], abort.signal);
    const waiting = runtime.submit("fill", [pointer, 1, 2], abort.signal);
    const other = runtime.submit("fill", [pointer, 1, 3]);
    abort.abort(new Error("enough"));
    await assert.rejects(running, /enough/);
    assert.equal(runtime.f32(pointer, count)[count - 1], 1, "the running job ended before it was rejected");
    await assert.rejects(waiting, /enough/);
    await other;
    assert.equal(runtime.f32(pointer, 1)[0], 3);
    await assert.rejects(runtime.submit("nothing", [], abort.signal), /enough/);
  }));

test("close rejects what is pending and refuses what comes after", async () => {
  const runtime = await WasmRuntime.create({ threads: 2 });
  const pointer = runtime.allocate(1 << 28);
  const pending = runtime.submit("fill", [pointer, 1 << 26, 1]);
  const rejected = assert.rejects(pending, /the runtime was closed/);
  await runtime.close();
  await rejected;
  assert.throws(() => runtime.parallel("nothing", [[]]), /closed/);
  await assert.rejects(runtime.submit("nothing", []), /closed/);
  await runtime.close();
});

test("a runtime that is not closed lets the process end, after what is pending", () => {
  const script = `
    import { WasmRuntime } from ${JSON.stringify(new URL("./runtime.js", import.meta.url).href)};
    const runtime = await WasmRuntime.create({ threads: 2 });
    runtime.parallel("nothing", [[], []]);
    const pointer = runtime.allocate(1 << 20);
    runtime.submit("fill", [pointer, 1 << 18, 5]).then(() => console.log(runtime.f32(pointer, 1)[0]));
  `;
  const options = { encoding: "utf8", timeout: 30_000 } as const;
  const { stdout, status } = spawnSync(process.execPath, ["--input-type=module", "-e", script], options);
  assert.equal(stdout, "5\n");
  assert.equal(status, 0);
});

test("the build for plain memory has the same kernels", async () => {
  const load = (name: string) => new WebAssembly.Module(readFileSync(new URL(name, import.meta.url)));
  const plain = load("./kernels.single.wasm");
  const names = (module: WebAssembly.Module) => WebAssembly.Module.exports(module).map((e) => e.name);
  assert.deepEqual(names(plain), names(load("./kernels.wasm")));
  const memory = new WebAssembly.Memory({ initial: 64, maximum: 65536 });
  const { exports } = new WebAssembly.Instance(plain, { env: { memory, abort() {} } });
  const fill = exports["fill"] as (...args: number[]) => void;
  fill(1 << 20, 3, 2.5);
  assert.deepEqual([...new Float32Array(memory.buffer, 1 << 20, 4)], [2.5, 2.5, 2.5, 0]);
});
