import assert from "node:assert/strict";
import { test } from "node:test";
import { type Contestant, speedOf, type Task, takeTurns } from "./contestant.js";

test("turns go forwards and backwards, the first round counts for nothing", async () => {
  const order: string[] = [];
  const contestant = (name: string): Contestant => {
    const runs: Record<Task, number> = { prefill: 0, decode: 0 };
    return {
      async run(task) {
        order.push(`${task} ${name}`);
        return { tokens: 10, seconds: ++runs[task], cpuSeconds: 2 };
      },
    };
  };
  const [first] = await takeTurns([contestant("a"), contestant("b")], { runs: 3 });
  assert.deepEqual(
    order.slice(0, 8),
    ["a", "b", "b", "a", "a", "b", "b", "a"].map((name) => `prefill ${name}`),
  );
  // Runs of 2, 3 and 4 seconds.
  assert.deepEqual(first.decode, { tokensPerSecond: 10 / 3, best: 5, tokensPerCpuSecond: 5 });
});

test("computing that is not known for one run is not known for all; an aborted signal stops", async () => {
  const run = { tokens: 1, seconds: 1, cpuSeconds: 1 };
  assert.equal(speedOf([run, { ...run, cpuSeconds: null }]).tokensPerCpuSecond, null);
  const stopped = takeTurns([{ run: async () => run }], {
    runs: 1,
    signal: AbortSignal.abort(new Error("x")),
  });
  await assert.rejects(stopped, /^Error: x$/);
});
