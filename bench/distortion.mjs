// Distortion of the trellis codes on unit Gaussians that no training saw (the default tables): mean squared
// error of a weight, one long sequence from a fixed state, against Shannon's bound 4^-bits; then by length of
// sequence, from a fixed state and tail-biting.
//
//   node bench/distortion.mjs [--rows 200000] [--json]
import { parseArgs } from "node:util";
import { bitsPerWeight, codeForRate, RATES } from "../dist/codec/trellis/code.js";
import { defaultCodebook } from "../dist/codec/trellis/codebook.js";
import { gaussians, meanSquaredError } from "../dist/codec/trellis/train.js";
import { searchCodes } from "../dist/codec/trellis/viterbi.js";
import { WasmRuntime } from "../dist/compute/wasm/runtime.js";
import { Random } from "../dist/random.js";

const { values } = parseArgs({
  options: { rows: { type: "string", default: "200000" }, json: { type: "boolean", default: false } },
});
const LENGTHS = [12, 24, 36, 96, 256];
const runtime = await WasmRuntime.create({ threads: 1 });

/** Mean squared error over about `rows` rows in sequences of `length`. */
function distortion({ codeBits, widths }, rows, length, tailBiting) {
  const pattern = widths.reduce((a, b) => a + b, 0);
  let sum = 0;
  for (const width of widths) {
    const codebook = defaultCodebook(codeBits, width);
    const random = new Random(0x7e57);
    const sequences = Math.ceil(rows / length);
    let error = 0;
    for (let i = 0; i < sequences; i++) {
      const targets = gaussians(length, width, random);
      const { bytes } = searchCodes(runtime, { targets, rows: length, codebook, tailBiting });
      error += meanSquaredError(bytes, targets, codebook.tables) / sequences;
    }
    sum += (width / pattern) * error;
  }
  return sum;
}

const rows = Number(values.rows);
const table = RATES.map((rate) => {
  const code = codeForRate(rate);
  const byLength = (tailBiting) =>
    Object.fromEntries(LENGTHS.map((length) => [length, distortion(code, rows / 8, length, tailBiting)]));
  return {
    bits: bitsPerWeight(code),
    codeBits: code.codeBits,
    widths: code.widths,
    bound: 4 ** -bitsPerWeight(code),
    long: distortion(code, rows, rows, false),
    fixedState: byLength(false),
    tailBiting: byLength(true),
  };
});
await runtime.close();

if (values.json) console.log(JSON.stringify(table));
else {
  const cells = (list) => console.log(list.map((cell, i) => String(cell).padStart(i < 2 ? 8 : 9)).join(""));
  const number = (x) => x.toPrecision(4);
  cells(["bits", "code", "bound", "long", ...LENGTHS, ...LENGTHS.map((n) => `${n} tb`)]);
  for (const { bits, codeBits, widths, bound, long, fixedState, tailBiting } of table)
    cells([
      bits.toFixed(2),
      `${codeBits}:${widths.join("")}`,
      number(bound),
      number(long),
      ...LENGTHS.map((n) => number(fixedState[n])),
      ...LENGTHS.map((n) => number(tailBiting[n])),
    ]);
}
