/** Compression: a checkpoint and a target in, a PocketLLM folder out. */
export { type CompressReport, compress } from "./compress.js";
export { type DryRunReport, dryRun, type PlannedRate } from "./dry-run.js";
export type { Forecast } from "./forecast.js";
export { type Absorb, type CompressOptions, type Method, PARTS, type Part } from "./options.js";
export { isMadeBy } from "./provenance.js";
export { bitsRange } from "./range.js";
export { DEFAULT_TARGET, parseBits, parseTarget, type Target, targetBits } from "./target.js";
