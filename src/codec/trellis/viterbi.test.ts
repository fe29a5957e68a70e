import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { WasmRuntime } from "../../compute/wasm/runtime.js";
import { InputError } from "../../errors.js";
import { Random } from "../../random.js";
import { type CodeBits, cycles, stateCodes } from "./code.js";
import { type Codebook, defaultCodebook } from "./codebook.js";
import { windowMap } from "./maps.js";
import { imageOf } from "./schedule.js";
import { gaussians } from "./train.js";
import { searchCodes } from "./viterbi.js";

let runtime: WasmRuntime;
before(async () => {
  runtime = await WasmRuntime.create({ threads: 1 });
});
after(() => runtime.close());

interface Problem {
  readonly targets: Float32Array;
  readonly rows: number;
  readonly codebook: Codebook;
  readonly rowWeights: Float32Array;
}

function errorOf({ targets, rows, codebook, rowWeights }: Problem, row: number, u: number): number {
  const { width, tables } = codebook;
  let sum = 0;
  for (let v = 0; v < width; v++)
    sum +=
      (targets[v * rows + row] - tables[(u & 15) * width + v] - tables[(16 + (u >> 4)) * width + v]) ** 2;
  return rowWeights[row] * sum;
}

/**
 * Least cost of a sequence of rows in f64, by states that are plain numbers and the maps as defined: from
 * state 0 to any, or the best over all cycles.
 */
function leastCost(problem: Problem, sequence: readonly number[], cyclic: boolean): number {
  const { codeBits, width } = problem.codebook;
  const map = windowMap(codeBits, width, "split");
  const ages = stateCodes(codeBits);
  const branches = 1 << codeBits;
  const states = branches ** ages;
  const image = Array.from({ length: states }, (_, state) => {
    let u = 0;
    for (let k = 0; k < ages; k++)
      u ^= imageOf(map, codeBits, k + 1, (state >> (k * codeBits)) & (branches - 1));
    return u;
  });
  const newest = Array.from({ length: branches }, (_, n) => imageOf(map, codeBits, 0, n));
  const errors = sequence.map((row) =>
    Float64Array.from({ length: 256 }, (_, u) => errorOf(problem, row, u)),
  );
  const fromState = (start: number): Float64Array => {
    let cost = new Float64Array(states).fill(Number.POSITIVE_INFINITY);
    cost[start] = 0;
    for (const row of errors) {
      const next = new Float64Array(states).fill(Number.POSITIVE_INFINITY);
      for (let state = 0; state < states; state++) {
        if (cost[state] === Number.POSITIVE_INFINITY) continue;
        for (let n = 0; n < branches; n++) {
          const to = ((state << codeBits) | n) & (states - 1);
          next[to] = Math.min(next[to], cost[state] + row[newest[n] ^ image[state]]);
        }
      }
      cost = next;
    }
    return cost;
  };
  if (!cyclic) return Math.min(...fromState(0));
  return Math.min(...Array.from({ length: states }, (_, state) => fromState(state)[state]));
}

/** Cost of codes decoded by the format's definition; also checks the windows' bytes. */
function costOf(problem: Problem, interleave: number, tailBiting: boolean): number {
  const { rows, codebook } = problem;
  const { codeBits, width } = codebook;
  const { codes, bytes } = searchCodes(runtime, { ...problem, interleave, tailBiting });
  const map = windowMap(codeBits, width, "split");
  let sum = 0;
  for (let r = 0; r < rows; r++) {
    let u = 0;
    for (let age = 0; age <= stateCodes(codeBits); age++) {
      const row = r - age * interleave;
      if (row >= 0 || tailBiting) u ^= imageOf(map, codeBits, age, codes[((row % rows) + rows) % rows]);
    }
    assert.equal(bytes[r], u, `row ${r}`);
    assert.ok(codes[r] < 1 << codeBits);
    sum += errorOf(problem, r, u);
  }
  return sum;
}

function problemOf(codeBits: CodeBits, width: number, rows: number, seed: number): Problem {
  const random = new Random(seed);
  return {
    targets: gaussians(rows, width, random),
    rows,
    codebook: defaultCodebook(codeBits, width),
    rowWeights: Float32Array.from({ length: rows }, () => Math.exp(0.7 * random.normal())),
  };
}

for (const [codeBits, width] of [
  [4, 1],
  [4, 2],
  [4, 3],
  [4, 4],
  [3, 1],
  [3, 2],
] as const) {
  test(`${codeBits}-bit codes, ${width} columns: as good as the exhaustive search`, () => {
    for (const [rows, interleave] of [
      [1, 1],
      [50, 1],
      [9, 16],
      [83, 16],
    ]) {
      const problem = problemOf(codeBits, width, rows, 1);
      let least = 0;
      for (let s = 0; s < Math.min(rows, interleave); s++)
        least += leastCost(
          problem,
          Array.from({ length: Math.ceil((rows - s) / interleave) }, (_, k) => s + k * interleave),
          false,
        );
      const cost = costOf(problem, interleave, false);
      // Rounding of costs to 1/256 of their expectation may prefer a path that is worse by a little.
      assert.ok(cost <= least * 1.003 && cost >= least * 0.99999, `${cost} against ${least}`);
    }
  });
}

for (const [codeBits, width] of [
  [4, 2],
  [3, 2],
] as const) {
  test(`${codeBits}-bit codes, ${width} columns: tail-biting finds nearly the best cycles`, () => {
    for (const [rows, interleave] of [
      [29, 1],
      [58, 16],
    ]) {
      const problem = problemOf(codeBits, width, rows, 2);
      const { count, length } = cycles(rows, interleave);
      let least = 0;
      for (let s = 0; s < count; s++)
        least += leastCost(
          problem,
          Array.from({ length }, (_, k) => (s + k * interleave) % rows),
          true,
        );
      const cost = costOf(problem, interleave, true);
      assert.ok(cost <= least * 1.25 && cost >= least * 0.99999, `${cost} against ${least}`);
    }
  });
}

test("sequences longer than a piece lose nothing", () => {
  const problem = problemOf(4, 2, 5000, 3);
  const least = leastCost(
    problem,
    Array.from({ length: 5000 }, (_, r) => r),
    false,
  );
  const cost = costOf(problem, 1, false);
  assert.ok(cost <= least * 1.0005, `${cost} against ${least}`);
});

test("outliers that saturate the costs are coded at a coarser scale", () => {
  const problem = problemOf(4, 1, 60, 4);
  problem.targets[0] = 40;
  problem.targets[30] = -900;
  const least = leastCost(
    problem,
    Array.from({ length: 60 }, (_, r) => r),
    false,
  );
  const cost = costOf(problem, 1, false);
  assert.ok(cost <= least * 1.001, `${cost} against ${least}`);
});

test("targets that are not numbers are refused", () => {
  const problem = problemOf(3, 2, 20, 5);
  problem.targets[7] = Number.NaN;
  assert.throws(() => searchCodes(runtime, problem), InputError);
  assert.equal(runtime.bytesInUse, 0);
});
