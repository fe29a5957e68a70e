/** What `pocketllm/report` exports. */
export type { CardOptions } from "./card.js";
export type { FolderFacts, MatrixDistortion } from "./folder-facts.js";
export type { Report, ReportedFolder } from "./report.js";
export type { EvaluationResult, SpeedResult, TaskScore, TextResult } from "./results.js";
export { type RunReportOptions, runReport, type WrittenReport } from "./run.js";
