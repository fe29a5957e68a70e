/** The `Platform` of Node: worker_threads and files. */
import { readFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { setFlagsFromString } from "node:v8";
import { parentPort, Worker, workerData } from "node:worker_threads";
import { type Platform, RELAXED_SIMD } from "./platform.js";

/** Node 20's engine has relaxed SIMD behind a flag that takes effect for modules compiled later. */
function relaxedSimd(): boolean {
  if (!WebAssembly.validate(RELAXED_SIMD) && process.versions.node.startsWith("20."))
    setFlagsFromString("--experimental-wasm-relaxed-simd");
  return WebAssembly.validate(RELAXED_SIMD);
}

export const platform: Platform = {
  cores: availableParallelism,
  canBlock: true,
  canShare: true,

  async loadKernels(shared, fused) {
    if (fused && !relaxedSimd()) return null;
    const name = `../kernels${shared ? "" : ".single"}${fused ? ".fused" : ""}.wasm`;
    return WebAssembly.compile(await readFile(new URL(name, import.meta.url)));
  },

  joinVectors() {
    // Of older engines some have the flag and miss instructions that the kernels need joined.
    if (process.arch !== "x64" || Number.parseInt(process.versions.v8, 10) < 13) return false;
    setFlagsFromString("--experimental-wasm-revectorize");
    return true;
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
