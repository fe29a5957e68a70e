/** Training small models from nothing. */
export { type TrainOptions, type TrainReport, train } from "./train.js";
