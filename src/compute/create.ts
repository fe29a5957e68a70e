/** Makes the backend that suits this machine. */
import { platform } from "#platform";
import { WasmBackend } from "./wasm/backend.js";
import type { WasmRuntimeOptions } from "./wasm/runtime.js";
import { joinsExactly } from "./wasm/wide-check.js";

export interface BackendOptions extends Omit<WasmRuntimeOptions, "wide" | "joined"> {
  /**
   * Have the engine compute 256 bits at a time in products of many tokens where it can (Node 24 and later on x64),
   * which is tried first. It holds for all WebAssembly that the process compiles later. Default false.
   */
  readonly joinVectors?: boolean | undefined;
}

/** Throws InputError if the options are out of range. Close the backend to end its threads. */
export function createBackend({ joinVectors, ...options }: BackendOptions = {}): Promise<WasmBackend> {
  return joinVectors ? createJoined(options, "joined") : WasmBackend.create(options);
}

/**
 * A backend for compressing and training, which multiply large matrices for minutes: "wide" where the engine joins
 * vectors (1.6 times as fast). Not for what promises that a token's result does not depend on those beside it.
 */
export function createTrainingBackend(
  options: Pick<WasmRuntimeOptions, "threads"> = {},
): Promise<WasmBackend> {
  return createJoined(options, "wide");
}

/** With tiles for joined vectors, or without where they would not help or not be right. */
async function createJoined(options: WasmRuntimeOptions, kind: "joined" | "wide"): Promise<WasmBackend> {
  if (!platform.joinVectors()) return await WasmBackend.create(options);
  const backend = await WasmBackend.create({ ...options, [kind]: true });
  if (joinsExactly(backend.runtime)) return backend;
  await backend.close();
  return await WasmBackend.create(options);
}
