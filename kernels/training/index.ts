export { attentionBackwardKeys } from "./attention-keys";
export { attentionBackwardQueries } from "./attention-queries";
export * from "./elementwise";
export * from "./loss";
export * from "./norm";
export * from "./optimizer";
export * from "./trellis";
