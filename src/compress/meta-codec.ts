/** The paper's method as the pipeline uses it: every (d, K) is a rate, codebook and decoder counted. */
import { metaTensors } from "../codec/meta/decode.js";
import { encodeMeta } from "../codec/meta/encode.js";
import { expectedError, META_DEFAULTS, type MetaShape } from "../codec/meta/options.js";
import type { WasmRuntime } from "../compute/wasm/runtime.js";
import type { MatrixCodec } from "./codec.js";
import type { Rate } from "./plan.js";

const WIDTHS = [8, 4] as const;
/** log2 of the codebook's size: 2^15 is the largest that the paper uses. */
const INDEX_BITS = [4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15] as const;

export function metaCodec(runtime: WasmRuntime): MatrixCodec<MetaShape> {
  return {
    method: "meta",
    concurrent: false,
    rates(rows, columns) {
      const bytes = (rate: Rate<MetaShape>) =>
        rate
          .tensors(rows, columns)
          .reduce((sum, { dtype, shape }) => sum + shape.reduce((n, s) => n * s, dtype === "U8" ? 1 : 2), 0);
      return WIDTHS.filter((d) => columns % d === 0)
        .flatMap((d) => INDEX_BITS.map((bits) => rateOf({ ...META_DEFAULTS, d, k: 2 ** bits })))
        .sort((a, b) => bytes(a) - bytes(b));
    },
    async encode({ weights, rows, columns, rate, seed, signal }) {
      const options = rate.code;
      const { coded, squaredError } = await encodeMeta(runtime, {
        weights,
        rows,
        columns,
        options,
        seed,
        signal,
      });
      return { coded, squaredError, proxyError: null };
    },
  };
}

function rateOf(code: MetaShape): Rate<MetaShape> {
  const bits = Math.log2(code.k) / code.d;
  return {
    name: `d ${code.d}, K ${code.k}`,
    code,
    distortion: expectedError(code.d, bits),
    tensors: (rows, columns) =>
      Object.entries(metaTensors(rows, columns, code)).map(([suffix, { dtype, shape }]) => ({
        suffix,
        dtype: dtype as "U8" | "F16",
        shape,
      })),
  };
}
