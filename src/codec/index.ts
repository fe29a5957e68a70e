/** What the codec room offers to the others. */
export { type CodedMatrix, codedBytes, type JsonValue, type StoredTensor } from "./coded.js";
export * from "./meta/index.js";
export { createRotation, type Rotation, rotateRows, unrotateRows } from "./rotation.js";
export * from "./trellis/index.js";
