/** Training on compressed models. */
export type { TuneOptions, TuneReport } from "./options.js";
export { stateFolder, tune } from "./tune.js";
