import assert from "node:assert/strict";
import { after, test } from "node:test";
import { lanesOf, lanesOfStored } from "../trellis-lanes.js";
import { WasmRuntime } from "./runtime.js";
import { trellisCodes } from "./trellis-codes.js";

const runtimes = await Promise.all([1, 2].map((threads) => WasmRuntime.create({ threads })));
after(() => Promise.all(runtimes.map((runtime) => runtime.close())));

function bytes(length: number, seed: number): Uint8Array {
  let state = seed;
  return Uint8Array.from({ length }, () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) >>> 24);
}

for (const codeBits of [3, 4] as const)
  for (const [rows, groups, interleave, tailBiting] of [
    [1, 1, 1, false],
    [5, 3, 7, true],
    [50, 7, 16, true],
    [33, 4, 1, false],
    [577, 301, 16, false],
    [1536, 144, 1, true],
    [2600, 5, 1, true],
  ] as const)
    test(`codes of ${codeBits} bits, ${rows} rows in ${groups} groups, S ${interleave}: as defined`, () => {
      const streams = codeBits === 4 ? Math.ceil(groups / 2) : groups;
      const stored = bytes(streams * (codeBits === 4 ? rows : 3 * Math.ceil(rows / 8)), 7);
      const carry = bytes(8, 3).map((value) => value & 15);
      carry[0] = 0; // Linear: nothing carries nothing.
      const chaining = { rows, interleave, tailBiting };
      const carries = codeBits === 4 ? [null] : [carry, null, carry.map((value) => value >> 1)];
      for (const runtime of runtimes) {
        const lanes = lanesOf(chaining, runtime.threads);
        const options = { stored, codeBits, streams, carries, chaining, lanes };
        const expected = lanesOfStored(options);
        const before = runtime.bytesInUse;
        const { address, bytes } = trellisCodes(runtime, options);
        assert.deepEqual(runtime.u8(address, bytes).slice(), expected);
        runtime.free(address);
        assert.equal(runtime.bytesInUse, before);
      }
    });
