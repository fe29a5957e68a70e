/** The library: load a model, generate, chat. Node; src/browser.ts is the same for browsers. */
export * from "./browser.js";
export { loadModel } from "./runtime/load.js";
