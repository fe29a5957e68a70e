import assert from "node:assert/strict";
import { test } from "node:test";
import { LANES, lanesOf, lanesOfStored, PREFIX, positionsOf, precedingRow } from "./trellis-lanes.js";

for (const [rows, threads, tiles] of [
  [1, 1, 1],
  [5, 1, 1],
  [16, 1, 1],
  [50, 1, 1],
  [192, 2, 1],
  [577, 1, 1],
  [577, 2, 2],
  [577, 8, 2],
  [2500, 1, 3],
  [4200, 2, 6],
] as const)
  for (const interleave of [1, 7, 16])
    for (const tailBiting of [true, false])
      test(`lanes of ${rows} rows for ${threads} threads, S ${interleave}, ${tailBiting ? "cyclic" : "from 0"}`, () => {
        const chaining = { rows, interleave, tailBiting };
        const lanes = lanesOf(chaining, threads);
        const { steps, tileSteps } = lanes;
        // Rows that have no lane of their own make steps more than rows / 16.
        if (steps * LANES < rows + 2 * LANES * tiles) assert.equal(steps / tileSteps, tiles);
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
        const length = LANES * (PREFIX + tileSteps);
        const rowAt = (place: number) =>
          streams[place] === 0 ? -1 : streams[place] - 1 + 255 * (streams[length + place] - 1);
        for (let row = 0; row < rows; row++) {
          const tile = Math.floor(positions[row] / (LANES * tileSteps));
          const place = LANES * PREFIX + 2 * tile * length + positions[row] - LANES * tileSteps * tile;
          const before = precedingRow(row, chaining);
          assert.equal(rowAt(place), row);
          assert.equal(rowAt(place - LANES), before);
          assert.equal(rowAt(place - 2 * LANES), precedingRow(before, chaining));
        }
      });
