/**
 * The `Platform` of browsers. Kernels and worker lie beside the bundle that this is part of
 * (scripts/build-browser.mjs). The `new URL("literal", import.meta.url)` forms are what bundlers of applications
 * recognise: keep them literal.
 */
import { InputError } from "../../../errors.js";
import { type Platform, RELAXED_SIMD } from "./platform.js";

const onMainThread = typeof document !== "undefined";

export const platform: Platform = {
  cores: () => navigator.hardwareConcurrency || 1,
  canBlock: !onMainThread,
  canShare: typeof SharedArrayBuffer !== "undefined" && globalThis.crossOriginIsolated,

  async loadKernels(shared, fused) {
    if (fused && !WebAssembly.validate(RELAXED_SIMD)) return null;
    const url = shared
      ? fused
        ? new URL("./kernels.fused.wasm", import.meta.url)
        : new URL("./kernels.wasm", import.meta.url)
      : fused
        ? new URL("./kernels.single.fused.wasm", import.meta.url)
        : new URL("./kernels.single.wasm", import.meta.url);
    const response = await fetch(url);
    if (!response.ok)
      throw new InputError(
        `${url}: HTTP ${response.status}: the kernels (*.wasm) must be served from beside the script`,
      );
    // Not compileStreaming: it refuses servers that do not send application/wasm.
    return WebAssembly.compile(await response.arrayBuffer());
  },

  joinVectors: () => false,

  startWorker(start, onMessage, onError) {
    const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    worker.onmessage = (event) => onMessage(event.data);
    worker.onerror = (event) =>
      onError(
        new InputError(
          `a compute worker failed (${event.message || "worker.js could not be loaded; it must be served from beside the script"})`,
        ),
      );
    worker.postMessage(start);
    return {
      keepAlive() {},
      async terminate() {
        worker.onmessage = null;
        worker.onerror = null;
        worker.terminate();
      },
    };
  },

  onWorkerStart(run) {
    addEventListener("message", (event) => run(event.data, (message) => postMessage(message)), {
      once: true,
    });
  },
};
