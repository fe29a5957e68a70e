/**
 * The mailbox between the owner of a runtime and one worker: a slot of a small SharedArrayBuffer (not the
 * kernels' memory, so that views of it never go stale). The owner posts a kernel and its arguments; the
 * worker runs it and leaves "done" or an error message. Both sides wait by spinning shortly, then sleeping.
 */

export const MAX_ARGUMENTS = 32;
const MESSAGE_BYTES = 1024;
const HEADER_BYTES = 64;
const SLOT_BYTES = HEADER_BYTES + 8 * MAX_ARGUMENTS + MESSAGE_BYTES;

/**
 * Spinning answers in under a microsecond; sleeping and waking costs 20 to 60. A layer's kernels follow one
 * another within this time, and on a busy machine a longer spin only takes the core from whoever has work.
 */
const SPIN_MILLISECONDS = 0.1;

// Words of the header.
const STATE = 0;
const KERNEL = 1;
const ARGUMENT_COUNT = 2;
const WANTS_MESSAGE = 3;
const ERROR_BYTES = 4;
/** 1 while that side sleeps: only then it must be woken, which costs about a microsecond. */
const OWNER_SLEEPS = 5;
const WORKER_SLEEPS = 6;

const IDLE = 0;
const POSTED = 1;
const DONE = 2;
const FAILED = 3;
const RUNNING = 4;

export interface Job {
  readonly kernel: number;
  readonly args: readonly number[];
  /** The worker should also send "done" as a message, for an owner that does not wait. */
  readonly wantsMessage: boolean;
}

export class Mailbox {
  readonly #words: Int32Array;
  readonly #args: Float64Array;
  readonly #message: Uint8Array;
  readonly #canBlock: boolean;

  static bufferFor(slots: number): SharedArrayBuffer {
    return new SharedArrayBuffer(slots * SLOT_BYTES);
  }

  constructor(control: SharedArrayBuffer, slot: number, canBlock: boolean) {
    const base = slot * SLOT_BYTES;
    this.#words = new Int32Array(control, base, HEADER_BYTES / 4);
    this.#args = new Float64Array(control, base + HEADER_BYTES, MAX_ARGUMENTS);
    this.#message = new Uint8Array(control, base + HEADER_BYTES + 8 * MAX_ARGUMENTS, MESSAGE_BYTES);
    this.#canBlock = canBlock;
  }

  /** Owner: hands over a job. The slot must be idle. */
  post(job: Job): void {
    const words = this.#words;
    words[KERNEL] = job.kernel;
    words[ARGUMENT_COUNT] = job.args.length;
    words[WANTS_MESSAGE] = job.wantsMessage ? 1 : 0;
    for (let i = 0; i < job.args.length; i++) this.#args[i] = job.args[i];
    this.#set(POSTED, WORKER_SLEEPS);
  }

  /** Owner: takes a job back that the worker has not begun; false when it has. The slot is idle again. */
  revoke(): boolean {
    return Atomics.compareExchange(this.#words, STATE, POSTED, IDLE) === POSTED;
  }

  /** Owner: waits until the job that the worker has begun has ended. */
  wait(): void {
    this.#waitWhile(RUNNING, OWNER_SLEEPS);
  }

  /** Owner: the ended job's error message, or undefined; the slot is idle again. */
  collect(): string | undefined {
    const words = this.#words;
    const failed = Atomics.load(words, STATE) === FAILED;
    // slice: TextDecoder refuses shared memory in browsers.
    const message = failed ? new TextDecoder().decode(this.#message.slice(0, words[ERROR_BYTES])) : undefined;
    Atomics.store(words, STATE, IDLE);
    return message;
  }

  /** Worker: waits for the next job. */
  next(): Job {
    const words = this.#words;
    for (;;) {
      const state = Atomics.compareExchange(words, STATE, POSTED, RUNNING);
      if (state === POSTED) break;
      this.#waitWhile(state, WORKER_SLEEPS);
    }
    const args: number[] = [];
    for (let i = 0; i < words[ARGUMENT_COUNT]; i++) args.push(this.#args[i]);
    return { kernel: words[KERNEL], args, wantsMessage: words[WANTS_MESSAGE] === 1 };
  }

  /** Worker: ends the job, with an error message if it failed. */
  finish(error?: string): void {
    const words = this.#words;
    if (error !== undefined) {
      const bytes = new TextEncoder().encode(error).subarray(0, MESSAGE_BYTES);
      this.#message.set(bytes);
      words[ERROR_BYTES] = bytes.length;
    }
    this.#set(error === undefined ? DONE : FAILED, OWNER_SLEEPS);
  }

  /** Wakes the other side if it sleeps. */
  #set(state: number, sleeps: number): void {
    const words = this.#words;
    Atomics.store(words, STATE, state);
    if (Atomics.load(words, sleeps) === 1) Atomics.notify(words, STATE);
  }

  #waitWhile(state: number, sleeps: number): void {
    const words = this.#words;
    if (Atomics.load(words, STATE) !== state) return;
    const end = performance.now() + SPIN_MILLISECONDS;
    do {
      for (let i = 0; i < 50; i++) if (Atomics.load(words, STATE) !== state) return;
    } while (!this.#canBlock || performance.now() < end);
    // Whoever sets the state after this sees it; who set it before is seen by the load.
    Atomics.store(words, sleeps, 1);
    while (Atomics.load(words, STATE) === state) Atomics.wait(words, STATE, state);
    Atomics.store(words, sleeps, 0);
  }
}
