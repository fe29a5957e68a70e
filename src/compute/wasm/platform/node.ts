/** The `Platform` of Node: worker_threads and files. */
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { parentPort, Worker, workerData } from "node:worker_threads";
import type { Platform } from "./platform.js";

export const platform: Platform = {
  cores: availableParallelism,
  canBlock: true,
  canShare: true,

  async loadKernels(shared) {
    const name = shared ? "../kernels.wasm" : "../kernels.single.wasm";
    return WebAssembly.compile(await readFile(new URL(name, import.meta.url)));
  },

  startWorker(start, onMessage, onError) {
    // No execArgv: flags such as --input-type are for the main script and make a worker fail.
    const worker = new Worker(new URL("../worker.js", import.meta.url), { workerData: start, execArgv: [] });
    worker.on("message", onMessage);
    worker.on("error", onError);
    worker.on("exit", (code) => onError(new Error(`a compute worker exited with code ${code}`)));
    return {
      keepAlive(alive) {
        if (alive) worker.ref();
        else worker.unref();
      },
      async terminate() {
        worker.removeAllListeners();
        await worker.terminate();
      },
    };
  },

  onWorkerStart(run) {
    const port = parentPort;
    if (!port) throw new Error("the compute worker was not started as a worker thread");
    run(workerData, (message) => port.postMessage(message));
  },
};
