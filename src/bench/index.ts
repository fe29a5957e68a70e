/** Measuring models against each other and against the machine (Node only). */

export * from "./bench.js";
export { bestOf, median } from "./best.js";
export { answerParent, Child, timed } from "./child.js";
export * from "./contestant.js";
export * from "./kernels.js";
