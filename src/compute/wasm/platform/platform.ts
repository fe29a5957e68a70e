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
  /** The kernels, compiled; `shared` picks the build that imports a shared memory. */
  loadKernels(shared: boolean): Promise<WebAssembly.Module>;
  startWorker(
    start: WorkerStart,
    onMessage: (message: WorkerMessage) => void,
    onError: (error: Error) => void,
  ): WorkerHandle;
  /** On a worker thread: calls `run` with what `startWorker` was given. */
  onWorkerStart(run: (start: WorkerStart, post: (message: WorkerMessage) => void) => void): void;
}
