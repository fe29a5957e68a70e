/** Training on compressed models. */
export { stateFolder, type TuneOptions, type TuneReport, tune } from "./tune.js";
