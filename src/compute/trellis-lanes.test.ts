import assert from "node:assert/strict";
import { test } from "node:test";
import { LANES, lanesOf, lanesOfStored, placeOf, positionsOf, precedingRow } from "./trellis-lanes.js";

for (const [rows, threads, tiles] of [
  [1, 1, 1],
  [5, 1, 1],
  [16, 1, 1],
  [50, 1, 1],
  [192, 2, 2],
  [577, 1, 1],
  [577, 2, 2],
  [577, 8, 6],
  [2500, 1, 3],
  [4200, 2, 6],
] as const)
  for (const interleave of [1, 7, 16])
    for (const tailBiting of [true, false])
      test(`lanes of ${rows} rows for ${threads} threads, S ${interleave}, ${tailBiting ? "cyclic" : "from 0"}`, () => {
        const chaining = { rows, interleave, tailBiting };
        const lanes = lanesOf(chaining, threads);
        // With one sequence all 16 lanes have rows; with others fewer may, and steps and tiles are more.
        if (interleave === 1) assert.equal(lanes.steps / lanes.tileSteps, tiles);
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
        const rowAt = (step: number, lane: number) => {
          const [low, high] = [0, 1].map((pair) => streams[placeOf(lanes, 2, pair, step) + lane]);
          return low === 0 ? -1 : low - 1 + 255 * (high - 1);
        };
        for (let row = 0; row < rows; row++) {
          const step = Math.floor(positions[row] / LANES);
          const lane = positions[row] % LANES;
          const before = precedingRow(row, chaining);
          assert.equal(rowAt(step, lane), row);
          assert.equal(rowAt(step - 1, lane), before);
          assert.equal(rowAt(step - 2, lane), precedingRow(before, chaining));
        }
      });
