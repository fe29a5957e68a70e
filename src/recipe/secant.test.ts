import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { nextBits, type Try } from "./secant.js";

const range = { least: 1.2, most: 4.1 };

/** Runs the search against a model whose divergence is this function of the bits. */
function search(divergence: (bits: number) => number, wanted: number): Try[] {
  const tries: Try[] = [];
  for (let bits = nextBits([], wanted, range); bits !== null; bits = nextBits(tries, wanted, range)) {
    assert.ok(bits >= range.least && bits <= range.most, `${bits} bits`);
    tries.push({ bits, divergence: divergence(bits) });
    assert.ok(tries.length <= 8, JSON.stringify(tries));
  }
  return tries;
}

const curves: readonly [name: string, divergence: (bits: number) => number][] = [
  ["as SmolLM2", (bits) => 1.34 * Math.exp(-1.3 * (bits - 1.6) + 0.17 * (bits - 1.6) ** 2)],
  ["steep", (bits) => 20 * Math.exp(-3 * bits)],
  ["flat", (bits) => 2 * Math.exp(-0.8 * bits)],
  ["in steps, as plans are", (bits) => 10 * Math.exp((-1.5 * Math.floor(bits * 20)) / 20)],
];

describe("the search for a divergence", () => {
  for (const [name, curve] of curves)
    for (const share of [0.1, 0.4, 0.8])
      test(`${name}, ${share} of the way`, () => {
        const wanted = curve(range.least + share * (range.most - range.least));
        const tries = search(curve, wanted);
        const good = tries.filter((t) => t.divergence <= wanted);
        assert.ok(good.length > 0, JSON.stringify(tries));
        const smallest = Math.min(...good.map((t) => t.bits));
        assert.ok(curve(smallest - 0.1) > wanted, `${smallest} bits are more than needed`);
      });

  test("out of reach: ends at the most bits", () => {
    const tries = search(() => 1, 1e-3);
    assert.equal(tries.at(-1)!.bits, range.most);
    assert.ok(tries.every((t) => t.divergence > 1e-3));
  });

  test("more than the smallest needs: ends at the least bits", () => {
    const tries = search((bits) => Math.exp(-bits), 5);
    assert.equal(tries.at(-1)!.bits, range.least);
  });

  test("noise that puts tries out of order does not run away", () => {
    let n = 0;
    const tries = search((bits) => Math.exp(-1.3 * bits) * (1 + 0.3 * (-1) ** n++), 0.05);
    assert.ok(
      tries.some((t) => t.divergence <= 0.05),
      JSON.stringify(tries),
    );
  });
});
