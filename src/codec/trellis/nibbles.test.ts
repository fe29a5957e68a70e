import assert from "node:assert/strict";
import { test } from "node:test";
import { Random } from "../../random.js";
import { stateCodes } from "./code.js";
import { windowMap } from "./maps.js";
import { nibbleCode } from "./nibbles.js";
import { imageOf } from "./schedule.js";

const CASES = ([3, 4] as const).flatMap((codeBits) =>
  [1, 2, 3, 4].flatMap((width) => (["split", "joint"] as const).map((set) => ({ codeBits, width, set }))),
);
for (const { codeBits, width, set } of CASES)
  test(`nibbles of ${codeBits}-bit codes for ${width} columns give the bytes of the ${set} map`, () => {
    const map = windowMap(codeBits, width, set);
    const { maps, carry } = nibbleCode(codeBits, map, set);
    if (set === "split")
      for (let n = 0; n < 16; n++) assert.deepEqual([maps[n] & 0x0f, maps[16 + n] & 0xf0], [0, 0]);
    const random = new Random(width);
    const codes = Array.from({ length: 300 }, () => Math.floor(random.uniform() * 2 ** codeBits));
    const code = (r: number) => (r < 0 ? 0 : codes[r]);
    const nibble = (r: number) => code(r) ^ (carry ? carry[code(r - 1)] : 0);
    for (let r = 0; r < codes.length; r++) {
      let expected = 0;
      for (let age = 0; age <= stateCodes(codeBits); age++)
        expected ^= imageOf(map, codeBits, age, code(r - age));
      const n = nibble(r);
      assert.ok(n < 16);
      assert.equal(n ^ (n << 4) ^ maps[nibble(r - 1)] ^ maps[16 + nibble(r - 2)], expected, `row ${r}`);
    }
  });

test("a map whose newest code is not n | n << 4 is refused", () => {
  assert.throws(() => nibbleCode(4, [0x10, ...windowMap(4, 2, "split").slice(1)], "split"), RangeError);
});
