export * from "./core";
export * from "./encode/meta-nearest";
export * from "./encode/meta-network";
