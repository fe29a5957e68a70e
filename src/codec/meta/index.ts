/** The paper's method, "meta": encoder network, codebook and decoder network, trained for each matrix. */

export { decodeMeta, metaLinear, validateMeta } from "./decode.js";
export { type EncodedMeta, type EncodeMetaOptions, encodeMeta } from "./encode.js";
export { type KMeansOptions, type KMeansResult, kMeans } from "./kmeans.js";
export {
  chooseK,
  META_DEFAULTS,
  type MetaOptions,
  type MetaShape,
  metaBits,
  type Rln,
} from "./options.js";
