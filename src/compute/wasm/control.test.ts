import assert from "node:assert/strict";
import { test } from "node:test";
import { Mailbox } from "./control.js";

test("a job is taken back until a worker has begun it", () => {
  const control = Mailbox.bufferFor(1);
  const [owner, worker] = [new Mailbox(control, 0, true), new Mailbox(control, 0, true)];
  const job = { kernel: 3, args: [1, 2], wantsMessage: false };
  owner.post(job);
  assert.ok(owner.revoke());
  assert.ok(!owner.revoke(), "there is nothing left to take back");
  owner.post({ ...job, args: [5] });
  assert.deepEqual(worker.next(), { ...job, args: [5] });
  assert.ok(!owner.revoke(), "the worker has begun");
  worker.finish("why not");
  owner.wait();
  assert.equal(owner.collect(), "why not");
});
