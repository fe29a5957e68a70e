/** The project's own method, "trellis": Viterbi-searched codes with error feedback, decoded by look-ups. */
export {
  bitsPerWeight,
  type CodeBits,
  codeForRate,
  RATES,
  type Rate,
  type TrellisCode,
} from "./code.js";
export { decodeTrellis } from "./decode.js";
export { type EncodedTrellis, type EncodeTrellisInput, encodeTrellis } from "./encode.js";
export { FactoredHessian } from "./hessian.js";
export { TrellisLinear } from "./linear.js";
export { trellisTensors, validateTrellis } from "./stored.js";
