/** The library: load a model, generate, chat. Node; src/browser.ts is the same without files. */
export * from "./browser.js";
export { loadModel } from "./runtime/load.js";
