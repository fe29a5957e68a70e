/** Makes the backend that suits this machine. */
import { platform } from "#platform";
import { WasmBackend } from "./wasm/backend.js";
import type { WasmRuntimeOptions } from "./wasm/runtime.js";
import { joinsExactly } from "./wasm/wide-check.js";

/** Throws InputError if the options are out of range. Close the backend to end its threads. */
export function createBackend(options: WasmRuntimeOptions = {}): Promise<WasmBackend> {
  return WasmBackend.create(options);
}

/**
 * A backend for compressing and training, which multiply large matrices for minutes: "wide" where the engine computes
 * that 256 bits at a time (Node 24 and later on x64: 1.6 times as fast), which is tried first. Not for what promises
 * that a token's result does not depend on those beside it.
 */
export async function createTrainingBackend(
  options: Pick<WasmRuntimeOptions, "threads"> = {},
): Promise<WasmBackend> {
  if (!platform.joinVectors()) return await createBackend(options);
  const backend = await createBackend({ ...options, wide: true });
  if (backend.runtime.arithmetic !== "wide" || joinsExactly(backend.runtime)) return backend;
  await backend.close();
  return await createBackend(options);
}
