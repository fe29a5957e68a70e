/**
 * What the WASM runtime needs from Node or a browser: the two modules node.ts and browser.ts export these
 * names, and package.json's "imports" picks one as `#platform`. Every platform difference of compute/ is
 * behind this interface.
 */

/** What a worker thread needs to join a runtime. */
export interface WorkerStart {
  readonly module: WebAssembly.Module;
  readonly memory: WebAssembly.Memory;
  readonly control: SharedArrayBuffer;
  /** Which slot of `control` is this worker's. */
  readonly slot: number;
}

/** Worker to owner: "ready" once, then "done" after each job that asked for a message. */
export type WorkerMessage = "ready" | "done";

export interface WorkerHandle {
  /** Keep the process alive, or let it end, while this worker exists. No-op in a browser. */
  keepAlive(alive: boolean): void;
  terminate(): Promise<void>;
}

export interface Platform {
  /** Processor cores that may be used. */
  cores(): number;
  /** Atomics.wait is allowed on this thread (never on a browser's main thread). */
  readonly canBlock: boolean;
  /** SharedArrayBuffer can be passed to workers (a browser needs cross-origin isolation). */
  readonly canShare: boolean;
  /**
   * The kernels, compiled; `shared` picks the build that imports a shared memory, `fused` the one with relaxed
   * SIMD: null where the engine does not know it.
   */
  loadKernels(shared: boolean, fused: boolean): Promise<WebAssembly.Module | null>;
  /** Has the engine join vectors of 128 bits to 256 in what is compiled later (bit for bit); false where it cannot. */
  joinVectors(): boolean;
  startWorker(
    start: WorkerStart,
    onMessage: (message: WorkerMessage) => void,
    onError: (error: Error) => void,
  ): WorkerHandle;
  /** On a worker thread: calls `run` with what `startWorker` was given. */
  onWorkerStart(run: (start: WorkerStart, post: (message: WorkerMessage) => void) => void): void;
}

/**
 * A module of one function that uses relaxed SIMD (i8x16.relaxed_swizzle of two zero vectors, dropped): an
 * engine that validates it runs the fused kernels.
 */
export const RELAXED_SIMD = Uint8Array.of(
  ...[0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00],
  ...[0x01, 0x04, 0x01, 0x60, 0x00, 0x00],
  ...[0x03, 0x02, 0x01, 0x00],
  ...[0x0a, 0x10, 0x01, 0x0e, 0x00],
  ...[0x41, 0x00, 0xfd, 0x0f, 0x41, 0x00, 0xfd, 0x0f],
  ...[0xfd, 0x80, 0x02, 0x1a, 0x0b],
);
