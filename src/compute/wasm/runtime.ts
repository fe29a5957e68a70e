/**
 * One linear memory shared by threads that all run the same kernels: allocation, views, and two ways of
 * using the threads: `parallel` (fork and join, microseconds, blocks) and `submit` (a long job on one
 * worker, awaited). It knows nothing of tensors or models.
 */
import { platform } from "#platform";
import { InputError } from "../../errors.js";
import { Allocator, GRANULE } from "./allocator.js";
import { MAX_ARGUMENTS, Mailbox } from "./control.js";
import { instantiate, type Kernels, kernelNames } from "./kernels.js";
import type { WorkerHandle } from "./platform/platform.js";

const PAGE = 65536;
const MAXIMUM_PAGES = 65536;
const INITIAL_PAGES = 64;
/** The memory grows by at least this much: a grow stops all threads for a moment. */
const GROWTH_PAGES = 256;
const MAXIMUM_DEFAULT_THREADS = 8;
const MIB = 2 ** 20;

export interface WasmRuntimeOptions {
  /** Threads that `parallel` splits over, this one included. Default: the cores, at most 8. */
  readonly threads?: number | undefined;
  /** Limit of the memory, at most and by default 4 GiB. */
  readonly maximumBytes?: number | undefined;
  /** Default: fused where engine and processor can. */
  readonly arithmetic?: Exclude<Arithmetic, "wide"> | undefined;
  /** Makes fused arithmetic wide: for an engine that joins vectors. Default false. */
  readonly wide?: boolean | undefined;
  /** Products of whole numbers in tiles for an engine that joins vectors; the same numbers. Default: as `wide`. */
  readonly joined?: boolean | undefined;
  /** Do not wait for the workers to start (35 to 75 ms in Node): what runs before runs on this thread. Default false. */
  readonly early?: boolean | undefined;
}

/**
 * How a product is added to a sum: "fused" rounds once (relaxed SIMD on a processor that has the instruction:
 * a fifth to a third faster), "plain" twice. "wide" is fused and multiplies matrices of many rows in tiles that V8's
 * revectoriser computes 256 bits at a time, in another order of sums. Sums differ in their last bits between the
 * three, and in nothing else: not between machines or numbers of threads.
 */
export type Arithmetic = "wide" | "fused" | "plain";

interface SubmittedJob {
  readonly kernel: string;
  readonly args: readonly number[];
  readonly signal: AbortSignal | undefined;
  readonly resolve: () => void;
  readonly reject: (reason: unknown) => void;
}

interface WorkerSlot {
  readonly handle: WorkerHandle;
  readonly mailbox: Mailbox;
  /** Of the promise that waits for the worker to start; without effect afterwards. */
  readonly rejectStart: (reason: unknown) => void;
  ready: boolean;
  job: SubmittedJob | undefined;
}

export class WasmRuntime {
  /** Threads that `parallel` splits over; 1 where memory cannot be shared. */
  readonly threads: number;
  readonly arithmetic: Arithmetic;
  /** Whether products of whole numbers are laid out for an engine that joins vectors. */
  readonly joined: boolean;
  /** The kernels on this thread. */
  readonly exports: Kernels;
  readonly memory: WebAssembly.Memory;
  readonly #module: WebAssembly.Module;
  readonly #allocator: Allocator;
  readonly #maximumBytes: number;
  readonly #kernelNumbers: ReadonlyMap<string, number>;
  readonly #control: SharedArrayBuffer | undefined;
  readonly #workers: WorkerSlot[] = [];
  readonly #queue: SubmittedJob[] = [];
  #pending = 0;
  /** Addresses from here on were never handed out and are still zero. */
  #untouched: number;
  #failure: Error | undefined;
  #started: Promise<unknown> = Promise.resolve();

  /** Compiles the kernels and starts the workers. Throws InputError for options out of range. */
  static async create(options: WasmRuntimeOptions = {}): Promise<WasmRuntime> {
    const threads = options.threads ?? Math.min(platform.cores(), MAXIMUM_DEFAULT_THREADS);
    if (!Number.isInteger(threads) || threads < 1 || threads > 64)
      throw new InputError(`threads must be a whole number from 1 to 64, not ${threads}`);
    const maximumBytes = options.maximumBytes ?? MAXIMUM_PAGES * PAGE;
    const maximumPages = Math.floor(maximumBytes / PAGE);
    if (!(maximumPages >= INITIAL_PAGES && maximumPages <= MAXIMUM_PAGES))
      throw new InputError(`maximumBytes must be from 4 MiB to 4 GiB, not ${maximumBytes}`);
    const shared = platform.canShare;
    const { module, fused } = await loadKernels(shared, options.arithmetic);
    const arithmetic = fused ? (options.wide ? "wide" : "fused") : "plain";
    const joined = options.joined ?? options.wide ?? false;
    const memory = createMemory(maximumPages, shared);
    const kind = { arithmetic, joined } as const;
    const runtime = new WasmRuntime(module, kind, memory, maximumPages * PAGE, shared ? threads : 1);
    runtime.#started = Promise.all(Array.from({ length: runtime.threads - 1 }, () => runtime.#startWorker()));
    runtime.#started.catch(() => {});
    if (!options.early) await runtime.started();
    return runtime;
  }

  private constructor(
    module: WebAssembly.Module,
    { arithmetic, joined }: Pick<WasmRuntime, "arithmetic" | "joined">,
    memory: WebAssembly.Memory,
    maximumBytes: number,
    threads: number,
  ) {
    this.threads = threads;
    this.arithmetic = arithmetic;
    this.joined = joined;
    this.memory = memory;
    this.#module = module;
    this.#maximumBytes = maximumBytes;
    this.exports = instantiate(module, memory);
    this.#kernelNumbers = new Map(kernelNames(module).map((name, i) => [name, i]));
    // Below the heap base lie the kernels' constants.
    this.#untouched = this.exports["heapBase"]() >>> 0;
    this.#allocator = new Allocator(this.#untouched, memory.buffer.byteLength);
    if (platform.canShare) this.#control = Mailbox.bufferFor(threads);
  }

  /** Resolves when all workers run. Where one cannot start, the runtime is closed and this rejects. */
  async started(): Promise<void> {
    try {
      await this.#started;
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  /** Bytes handed out by `allocate` and not freed, in units of 64. */
  get bytesInUse(): number {
    return this.#allocator.bytesInUse;
  }

  /** The address of `bytes` zeroed bytes, a multiple of `align` (a power of two). Throws InputError when full. */
  allocate(bytes: number, align: number = GRANULE): number {
    if (!(bytes >= 0 && Number.isSafeInteger(bytes))) throw new RangeError(`allocate: ${bytes} bytes`);
    let pointer = this.#allocator.allocate(bytes, align);
    if (pointer === undefined) {
      this.#grow(bytes, align);
      pointer = this.#allocator.allocate(bytes, align);
      if (pointer === undefined) throw new Error("allocate: no room after growth");
    }
    const dirty = Math.min(bytes, Math.max(0, this.#untouched - pointer));
    if (dirty > 0) this.u8(pointer, dirty).fill(0);
    this.#untouched = Math.max(this.#untouched, pointer + bytes);
    return pointer;
  }

  free(pointer: number): void {
    this.#allocator.free(pointer);
  }

  // Views: of the current buffer, made anew each time, because one made before a growth ends too early.
  f32(pointer: number, length: number): Float32Array {
    return new Float32Array(this.memory.buffer, pointer, length);
  }

  i32(pointer: number, length: number): Int32Array {
    return new Int32Array(this.memory.buffer, pointer, length);
  }

  i16(pointer: number, length: number): Int16Array {
    return new Int16Array(this.memory.buffer, pointer, length);
  }

  u8(pointer: number, length: number): Uint8Array {
    return new Uint8Array(this.memory.buffer, pointer, length);
  }

  /**
   * Runs `kernel` once for each list of arguments, each on its own thread (the first on this one, and any that
   * no worker has begun when that is done), and returns when all have ended. At most `threads` lists. Throws the first error of any of them; throws at
   * once while submitted jobs are pending, which hold the workers.
   */
  parallel(kernel: string, argumentsPerThread: readonly (readonly number[])[]): void {
    this.#check(kernel, argumentsPerThread);
    const count = argumentsPerThread.length;
    if (count === 0) return;
    if (count > this.threads) throw new RangeError(`parallel: ${count} parts for ${this.threads} threads`);
    if (count > 1 && this.#pending > 0)
      throw new Error(`parallel: ${this.#pending} submitted jobs are pending`);
    const number = this.#kernelNumbers.get(kernel)!;
    for (let i = 1; i < count; i++)
      this.#workers[i - 1].mailbox.post({ kernel: number, args: argumentsPerThread[i], wantsMessage: false });
    let failure = this.#run(kernel, argumentsPerThread[0]);
    for (let i = 1; i < count; i++) {
      const { mailbox } = this.#workers[i - 1];
      // A worker that has not begun sleeps, or waits for a core: on a busy machine for many times a kernel.
      if (mailbox.revoke()) {
        // Also where another has failed.
        const failed = this.#run(kernel, argumentsPerThread[i]);
        failure ??= failed;
        continue;
      }
      mailbox.wait();
      const message = mailbox.collect();
      if (message !== undefined) failure ??= kernelError(kernel, message);
    }
    if (failure) throw failure;
  }

  /**
   * Runs `kernel` on the next free worker, first come first served, `threads` at a time; this thread stays
   * free. The promise settles when the job has ended. An aborted `signal` drops a job that has not started;
   * one that has runs to its end (it may be writing) and then rejects.
   * Without shared memory the job runs here, before this returns.
   */
  submit(kernel: string, args: readonly number[], signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      this.#check(kernel, [args]);
      if (!this.#control) {
        const failure = this.#run(kernel, args);
        if (failure) reject(failure);
        else resolve();
        return;
      }
      this.#pending++;
      this.#queue.push({ kernel, args, signal, resolve, reject });
      // `parallel` leaves one worker's place to this thread; jobs that are awaited can fill it.
      if (this.#workers.length < this.threads) this.#startWorker().catch((error) => this.#fail(error));
      this.#dispatch();
    });
  }

  /** Ends the workers. Pending jobs are rejected; the runtime cannot be used afterwards. */
  async close(): Promise<void> {
    this.#fail(new Error("the runtime was closed"));
    await Promise.all(this.#workers.splice(0).map((worker) => worker.handle.terminate()));
  }

  /** Runs `kernel` on this thread; the error that it throws, or undefined. */
  #run(kernel: string, args: readonly number[]): Error | undefined {
    try {
      this.exports[kernel](...args);
      return undefined;
    } catch (error) {
      return kernelError(kernel, error instanceof Error ? error.message : String(error));
    }
  }

  #check(kernel: string, argumentLists: readonly (readonly number[])[]): void {
    if (this.#failure) throw this.#failure;
    if (!this.#kernelNumbers.has(kernel)) throw new RangeError(`no kernel is named ${kernel}`);
    for (const args of argumentLists)
      if (args.length > MAX_ARGUMENTS)
        throw new RangeError(`${kernel}: more than ${MAX_ARGUMENTS} arguments`);
  }

  #grow(bytes: number, align: number): void {
    const size = this.memory.buffer.byteLength;
    const shortfall = this.#allocator.shortfall(bytes, align);
    const room = (this.#maximumBytes - size) / PAGE;
    const needed = Math.ceil(shortfall / PAGE);
    try {
      if (needed > room) throw new RangeError("over the limit");
      this.memory.grow(Math.min(room, Math.max(needed, GROWTH_PAGES)));
    } catch {
      throw new InputError(
        `out of memory: ${mib(bytes)} asked for, ${mib(this.bytesInUse)} in use, limit ${mib(this.#maximumBytes)}` +
          "; use a smaller model, context or batch",
      );
    }
    this.#allocator.extend(this.memory.buffer.byteLength);
  }

  /** Resolves when the worker has instantiated the kernels. */
  #startWorker(): Promise<void> {
    const control = this.#control!;
    const slot = this.#workers.length;
    return new Promise((resolve, reject) => {
      const worker: WorkerSlot = {
        handle: platform.startWorker(
          { module: this.#module, memory: this.memory, control, slot },
          (message) => {
            if (message === "ready") {
              worker.ready = true;
              worker.handle.keepAlive(false);
              resolve();
            } else this.#finish(worker);
            this.#dispatch();
          },
          (error) => this.#fail(error),
        ),
        mailbox: new Mailbox(control, slot, platform.canBlock),
        rejectStart: reject,
        ready: false,
        job: undefined,
      };
      this.#workers.push(worker);
    });
  }

  #dispatch(): void {
    for (const worker of this.#workers) {
      if (!worker.ready || worker.job) continue;
      const job = this.#nextJob();
      if (!job) return;
      worker.job = job;
      worker.handle.keepAlive(true);
      const kernel = this.#kernelNumbers.get(job.kernel)!;
      worker.mailbox.post({ kernel, args: job.args, wantsMessage: true });
    }
  }

  #nextJob(): SubmittedJob | undefined {
    for (;;) {
      const job = this.#queue.shift();
      if (!job?.signal?.aborted) return job;
      this.#pending--;
      job.reject(job.signal.reason);
    }
  }

  #finish(worker: WorkerSlot): void {
    const { job } = worker;
    const message = worker.mailbox.collect();
    if (!job) return;
    worker.job = undefined;
    worker.handle.keepAlive(false);
    this.#pending--;
    if (message !== undefined) job.reject(kernelError(job.kernel, message));
    else if (job.signal?.aborted) job.reject(job.signal.reason);
    else job.resolve();
  }

  /** A worker is gone, or the runtime closed: nothing that is pending will end. */
  #fail(error: Error): void {
    this.#failure ??= error;
    const jobs = this.#queue.splice(0);
    for (const worker of this.#workers) {
      worker.rejectStart(this.#failure);
      if (worker.job) jobs.push(worker.job);
      worker.job = undefined;
    }
    this.#pending = 0;
    for (const job of jobs) job.reject(this.#failure);
  }
}

function kernelError(kernel: string, message: string): Error {
  return new Error(`${kernel}: ${message}`);
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(bytes < 10 * MIB ? 2 : 0)} MiB`;
}

/** The kernels of the arithmetic asked for; without a wish the fused ones where they do fuse. */
async function loadKernels(
  shared: boolean,
  wanted: WasmRuntimeOptions["arithmetic"],
): Promise<{ module: WebAssembly.Module; fused: boolean }> {
  if (wanted !== "plain") {
    const module = await platform.loadKernels(shared, true);
    if (module && fuses(module, shared)) return { module, fused: true };
    if (wanted) throw new InputError("this machine has no fused arithmetic: leave it out, or use plain");
  }
  const module = await platform.loadKernels(shared, false);
  if (!module) throw new Error("the kernels cannot be compiled");
  return { module, fused: false };
}

function fuses(module: WebAssembly.Module, shared: boolean): boolean {
  const kernels = instantiate(module, createMemory(INITIAL_PAGES, shared));
  return kernels["fusesMultiplyAdd"](1 + 2 ** -12, -(1 + 2 ** -11)) !== 0;
}

/** A shared memory reserves its maximum at once, which a phone or a limited process may refuse: then less. */
function createMemory(maximumPages: number, shared: boolean): WebAssembly.Memory {
  for (let maximum = maximumPages; ; maximum = Math.floor(maximum / 2)) {
    try {
      return new WebAssembly.Memory({ initial: INITIAL_PAGES, maximum, shared });
    } catch (error) {
      if (maximum / 2 < INITIAL_PAGES) throw error;
    }
  }
}
