/** What `pocketllm/evaluate` exports. */
export type { DivergenceSummary, ProbabilityChange } from "./divergence.js";
export { type EvaluatedModel, type EvaluateOptions, type Evaluation, evaluate } from "./evaluate.js";
export { type FoundTask, findTask, type TaskFile } from "./hub-task.js";
export { type EvaluationJournal, JournalFile } from "./journal.js";
export { PROTOCOLS, type Protocol } from "./protocol.js";
export {
  type EvaluationReport,
  type ModelIdentity,
  type RunEvaluationOptions,
  runEvaluation,
} from "./run.js";
export { type Continuation, type Question, readTask, type Task } from "./task-file.js";
export { type EvaluateTasksOptions, evaluateTasks, type TaskModel, type TaskResult } from "./tasks.js";
