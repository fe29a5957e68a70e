import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { withLeanHeap } from "./lean-heap.js";

test("what loading leaves behind is collected, also where it fails, and once where two run", async () => {
  const left: WeakRef<object>[] = [];
  const load = async (fails: boolean) => {
    left.push(new WeakRef({ bytes: new Uint8Array(1000) }));
    // A reference is kept alive to the end of the turn it was made in.
    await setImmediate();
    if (fails) throw new Error("damaged");
    return 7;
  };
  const both = await Promise.allSettled([withLeanHeap(() => load(false)), withLeanHeap(() => load(true))]);
  await setImmediate();
  assert.deepEqual(
    both.map(({ status }) => status),
    ["fulfilled", "rejected"],
  );
  assert.equal((both[0] as PromiseFulfilledResult<number>).value, 7);
  assert.equal((both[1] as PromiseRejectedResult).reason.message, "damaged");
  assert.deepEqual(
    left.map((reference) => reference.deref()),
    [undefined, undefined],
  );
  assert.equal("gc" in globalThis, false);
});
