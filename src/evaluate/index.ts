/** What `pocketllm/evaluate` exports. */
export type { DivergenceSummary } from "./divergence.js";
export { type EvaluatedModel, type EvaluateOptions, type Evaluation, evaluate } from "./evaluate.js";
