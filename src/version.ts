/** Name and version of the tool, as manifests record them. The test keeps the version equal to package.json's. */
export const TOOL = "pocketllm";
export const VERSION = "0.1.0";
