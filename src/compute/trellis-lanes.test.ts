import assert from "node:assert/strict";
import { test } from "node:test";
import { LANES, lanesOf, lanesOfStored, PREFIX, positionsOf, precedingRow } from "./trellis-lanes.js";

for (const rows of [1, 5, 16, 50, 192, 577])
  for (const interleave of [1, 7, 16])
    for (const tailBiting of [true, false])
      test(`lanes of ${rows} rows, S ${interleave}, ${tailBiting ? "cyclic" : "from 0"}`, () => {
        const chaining = { rows, interleave, tailBiting };
        const lanes = lanesOf(chaining);
        const positions = positionsOf(lanes, rows);
        assert.equal(new Set(positions).size, rows, "every row has a place of its own");
        // Two pairs of codes that tell the row, in two digits of base 255, and 0 where there is none.
        const codes = Uint8Array.from({ length: 2 * rows }, (_, i) =>
          i < rows ? 1 + (i % 255) : 1 + Math.floor((i - rows) / 255),
        );
        const streams = lanesOfStored({
          stored: codes,
          codeBits: 4,
          streams: 2,
          carries: [null],
          chaining,
          lanes,
        });
        const length = LANES * (PREFIX + lanes.steps);
        const rowAt = (place: number) =>
          streams[place] === 0 ? -1 : streams[place] - 1 + 255 * (streams[length + place] - 1);
        for (let row = 0; row < rows; row++) {
          const place = LANES * PREFIX + positions[row];
          const before = precedingRow(row, chaining);
          assert.equal(rowAt(place), row);
          assert.equal(rowAt(place - LANES), before);
          assert.equal(rowAt(place - 2 * LANES), precedingRow(before, chaining));
        }
      });
