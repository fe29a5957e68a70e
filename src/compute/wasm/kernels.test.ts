/**
 * A memory that grows while a message brings it to another thread. Without the remedy in `instantiateOnWorker` 41
 * to 48 of 600 rounds fail on Node 20. This file is its own worker.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import {
  isMainThread,
  MessageChannel,
  type MessagePort,
  receiveMessageOnPort,
  Worker,
  workerData,
} from "node:worker_threads";
import { instantiateOnWorker } from "./kernels.js";

const PAGE = 65536;
const INITIAL_PAGES = 64;
const ROUNDS = 600;

// Words of the control.
const STATE = 0;
const IDLE = 0;
/** The worker receives the next message at once. */
const RECEIVES = 1;
/** The worker has its kernels. */
const READY = 2;
const GROWN = 3;
const DONE = 4;
const FAILED = 5;

interface Start {
  readonly module: WebAssembly.Module;
  readonly control: Int32Array;
  readonly port: MessagePort;
}

/** Which of `states` has come; an error instead of waiting for ever for a thread that has died. */
function waitFor(control: Int32Array, ...states: number[]): number {
  for (const end = Date.now() + 20_000; Date.now() < end; ) {
    const state = Atomics.load(control, STATE);
    if (states.includes(state)) return state;
    Atomics.wait(control, STATE, state, 1);
  }
  throw new Error("the other thread does not answer");
}

function work({ module, control, port }: Start): void {
  for (let round = 0; round < ROUNDS; round++) {
    waitFor(control, IDLE);
    Atomics.store(control, STATE, RECEIVES);
    let received: { message: WebAssembly.Memory } | undefined;
    while (!received) received = receiveMessageOnPort(port);
    const kernels = instantiateOnWorker(module, received.message);
    Atomics.store(control, STATE, READY);
    waitFor(control, GROWN);
    try {
      kernels["zeroElements"](INITIAL_PAGES * PAGE, 0, PAGE / 4);
      Atomics.store(control, STATE, DONE);
    } catch {
      Atomics.store(control, STATE, FAILED);
    }
  }
}

async function failures(): Promise<number> {
  const module = new WebAssembly.Module(readFileSync(new URL("./kernels.wasm", import.meta.url)));
  const control = new Int32Array(new SharedArrayBuffer(4));
  const { port1, port2 } = new MessageChannel();
  const start: Start = { module, control, port: port2 };
  const worker = new Worker(new URL(import.meta.url), { workerData: start, transferList: [port2] });
  let failed = 0;
  try {
    for (let round = 0; round < ROUNDS; round++) {
      const memory = new WebAssembly.Memory({ initial: INITIAL_PAGES, maximum: 1024, shared: true });
      while (Atomics.load(control, STATE) !== RECEIVES) await new Promise(setImmediate);
      port1.postMessage(memory);
      // About what receiving takes, in steps too small for a clock.
      for (let wait = 50 * (round % 60); wait > 0; wait--) Atomics.load(control, STATE);
      memory.grow(1);
      waitFor(control, READY);
      Atomics.store(control, STATE, GROWN);
      if (waitFor(control, DONE, FAILED) === FAILED) failed++;
      Atomics.store(control, STATE, IDLE);
    }
  } finally {
    await worker.terminate();
    port1.close();
  }
  return failed;
}

if (isMainThread)
  test("a memory that grows while it comes to a thread has its whole size there", async () => {
    assert.equal(await failures(), 0);
  });
else work(workerData as Start);
