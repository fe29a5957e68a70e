/** What the compute room offers to the others. */
export type {
  AttentionOptions,
  Backend,
  Buffer,
  ByteBuffer,
  MatmulOptions,
  RopeOptions,
  TrellisWeights,
} from "./backend.js";
export { createBackend, createTrainingBackend } from "./create.js";
export { DenseLinear, type Linear } from "./linear.js";
export { WasmBackend } from "./wasm/backend.js";
export { type Arithmetic, WasmRuntime, type WasmRuntimeOptions } from "./wasm/runtime.js";
