/** Makes the backend that suits this machine. */
import { WasmBackend } from "./wasm/backend.js";
import type { WasmRuntimeOptions } from "./wasm/runtime.js";

/** Throws InputError if the options are out of range. Close the backend to end its threads. */
export function createBackend(options: WasmRuntimeOptions = {}): Promise<WasmBackend> {
  return WasmBackend.create(options);
}
