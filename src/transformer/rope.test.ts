import assert from "node:assert/strict";
import { test } from "node:test";
import { rotaryFrequencies, rotaryTables } from "./rope.js";

function close(actual: number, expected: number): void {
  assert.ok(Math.abs(actual - expected) <= 1e-12 * Math.abs(expected), `${actual} is not ${expected}`);
}

test("plain frequencies are theta^(-2i / headSize)", () => {
  const f = rotaryFrequencies({ headSize: 8, ropeTheta: 10000, ropeScaling: null });
  [1, 0.1, 0.01, 0.001].forEach((expected, i) => {
    close(f[i], expected);
  });
});

test("linear scaling divides every frequency", () => {
  const f = rotaryFrequencies({ headSize: 8, ropeTheta: 10000, ropeScaling: { type: "linear", factor: 4 } });
  [0.25, 0.025, 0.0025, 0.00025].forEach((expected, i) => {
    close(f[i], expected);
  });
});

test("llama3 scaling keeps short waves, slows long ones and blends in between", () => {
  const f = rotaryFrequencies({
    headSize: 64,
    ropeTheta: 500000,
    ropeScaling: {
      type: "llama3",
      factor: 32,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalContextLength: 8192,
    },
  });
  // Llama 3.2's numbers; computed apart from the definition in wavelengths (2 pi / f): kept below
  // 8192 / 4 tokens, divided by 32 above 8192 / 1, blended by (8192 / wavelength - 1) / 3 between.
  const expected: Record<number, number> = {
    0: 1,
    8: 0.03760603093086393,
    14: 0.003211445994752591,
    15: 0.001290547928209264,
    16: 0.00042955679655936815,
    17: 9.70828780262767e-5,
    18: 1.9461638184831125e-5,
    31: 9.41830672543491e-8,
  };
  for (const [i, value] of Object.entries(expected)) close(f[Number(i)], value);
});

test("tables hold the cosine and sine of position times frequency", () => {
  const { cosines, sines } = rotaryTables({ headSize: 4, ropeTheta: 100, ropeScaling: null }, 3);
  assert.deepEqual(cosines, Float32Array.from([1, 1, 1, 0.1, 2, 0.2].map((a, i) => Math.cos(i < 2 ? 0 : a))));
  assert.deepEqual(sines, Float32Array.from([0, 0, 1, 0.1, 2, 0.2].map(Math.sin)));
});
