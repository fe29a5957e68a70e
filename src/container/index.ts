/** Public names of the room: writing, reading and checking PocketLLM folders (docs/format.md). */
export type { FinishOptions } from "./build.js";
export { PocketFolder } from "./folder.js";
export type { FolderSource } from "./folder-source.js";
export {
  type Inspection,
  inspectCheckpoint,
  inspectFolder,
  inspectModel,
  type MatrixSize,
  type PartSize,
} from "./inspect.js";
export { type CodedLayer, isTiered, type Tier, type TieredMatrix } from "./layer.js";
export type {
  CodedEntry,
  FileEntry,
  LayerEntry,
  Manifest,
  Provenance,
  TensorEntry,
  TieredEntry,
} from "./manifest.js";
export { type OpenFolderOptions, openFolder } from "./reader.js";
export { type Verification, verifyFolder } from "./verify.js";
export { FolderWriter } from "./writer.js";
