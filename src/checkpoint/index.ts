/** Public names of the room: opening models, and the safetensors format. */
export { parseModelConfig } from "./architectures.js";
export { type ByteSource, blobSource, bytesSource } from "./byte-source.js";
export type { Checkpoint, TensorInfo, TokenizerFiles } from "./checkpoint.js";
export type { Architecture, ModelConfig, RopeScaling } from "./config.js";
export { FileSource } from "./file-source.js";
export { hashSources } from "./hash.js";
export { openCheckpoint } from "./open.js";
export {
  buildSafetensorsHeader,
  parseSafetensorsHeader,
  readSafetensorsHeader,
  type SafetensorsEntry,
  SafetensorsFile,
  type SafetensorsHeader,
  type SafetensorsTensor,
  tensorBytes,
} from "./safetensors.js";
export {
  type TensorToWrite,
  type WriteSafetensorsOptions,
  type WrittenFile,
  writeAtomically,
  writeSafetensors,
} from "./safetensors-write.js";
export { expectedTensors } from "./tensors.js";
