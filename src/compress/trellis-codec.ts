/** The trellis codec as the pipeline uses it: its named rates, coded with error feedback where there is a Hessian. */
import { codeForRate, RATES, type TrellisCode } from "../codec/trellis/code.js";
import { defaultTables } from "../codec/trellis/default-tables.js";
import { encodeTrellis } from "../codec/trellis/encode.js";
import { trellisTensors } from "../codec/trellis/stored.js";
import type { WasmRuntime } from "../compute/wasm/runtime.js";
import type { MatrixCodec } from "./codec.js";
import type { Rate } from "./plan.js";

export type TrellisRate = Pick<TrellisCode, "codeBits" | "widths">;

/**
 * One cyclic sequence down all rows of a column group. On a real layer with feedback 16 interleaved cyclic
 * ones leave the same error, 16 open ones 5 to 7 % more (docs/quality.md, from bench/layers.mjs).
 */
const INTERLEAVE = 1;

export function trellisCodec(runtime: WasmRuntime): MatrixCodec<TrellisRate> {
  const rates = RATES.map((bits): Rate<TrellisRate> => {
    const code = codeForRate(bits);
    return {
      name: `${bits} bits`,
      code,
      distortion: distortion(code),
      tensors: (rows, columns) => {
        const { codes, tables, scales } = trellisTensors(rows, columns, code);
        return [
          { suffix: "codes", ...codes },
          { suffix: "tables", ...tables },
          { suffix: "scales", ...scales },
        ];
      },
    };
  });
  return {
    method: "trellis",
    concurrent: true,
    rates: () => rates,
    async encode({ weights, rows, columns, rowCosts, hessian, damping, rate, seed, signal }) {
      const { coded, squaredError, proxyError } = await encodeTrellis(runtime, {
        weights,
        rows,
        columns,
        rowCosts,
        hessian,
        damping,
        rate: rate.code,
        interleave: INTERLEAVE,
        seed,
        signal,
      });
      return { coded, squaredError, proxyError: hessian ? proxyError : null };
    },
  };
}

/** Of unit Gaussians: the mean over the columns of a pattern. */
function distortion({ codeBits, widths }: TrellisRate): number {
  let sum = 0;
  let columns = 0;
  for (const width of widths) {
    sum += width * defaultTables(codeBits, width).distortion;
    columns += width;
  }
  return sum / columns;
}
