import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { WasmRuntime } from "../../compute/wasm/runtime.js";
import { Random } from "../../random.js";
import { Arena, LANES, toBlocks } from "./blocks.js";
import { kMeans } from "./kmeans.js";
import { NearestSearch } from "./nearest.js";

let runtime: WasmRuntime;
before(async () => {
  runtime = await WasmRuntime.create({ threads: 2 });
});
after(() => runtime.close());

function normals(random: Random, length: number): Float32Array {
  return new Float32Array(length).map(() => random.normal());
}

function squaredDistance(a: Float32Array, i: number, b: Float32Array, j: number, d: number): number {
  let sum = 0;
  for (let x = 0; x < d; x++) sum += (a[i * d + x] - b[j * d + x]) ** 2;
  return sum;
}

for (const d of [4, 8]) {
  for (const k of [16, 48, 1024]) {
    test(`the search finds the nearest of ${k} entries of ${d}`, () => {
      const random = new Random(10 * k + d);
      const count = 1000;
      const blocks = Math.ceil(count / LANES);
      const vectors = normals(random, count * d);
      const codebook = normals(random, k * d);
      const arena = new Arena(runtime);
      const search = new NearestSearch(arena, k, d, blocks);
      const z = arena.words(blocks * LANES * d);
      toBlocks(vectors, d, runtime.f32(z, blocks * LANES * d));
      search.setCodebook(codebook);
      search.search(z, blocks);
      search.readCodes(count).forEach((code, i) => {
        let least = Number.POSITIVE_INFINITY;
        for (let entry = 0; entry < k; entry++)
          least = Math.min(least, squaredDistance(vectors, i, codebook, entry, d));
        const found = squaredDistance(vectors, i, codebook, code, d);
        // The kernel's single precision may prefer another entry only where the two are as good as equal.
        assert.ok(found <= least + 1e-5, `vector ${i}: entry ${code} at ${found}, nearest at ${least}`);
      });
      arena.free();
    });
  }
}

test("ties go to the lowest index, also between runs of 16 and lane groups", () => {
  const d = 8;
  const k = 128;
  const codebook = new Float32Array(k * d).fill(3);
  for (const entry of [21, 37, 90]) codebook.fill(1, entry * d, entry * d + d);
  const arena = new Arena(runtime);
  const search = new NearestSearch(arena, k, d, 1);
  const z = arena.floats(new Float32Array(LANES * d).fill(1));
  search.setCodebook(codebook);
  search.search(z, 1);
  assert.deepEqual([...search.readCodes(LANES)], new Array(LANES).fill(21));
  arena.free();
});

test("k-means of unit Gaussians reaches the known distortion", async () => {
  const random = new Random(3);
  const [d, k, count] = [4, 256, 20000];
  const vectors = normals(random, count * d);
  const { codebook, codes } = await kMeans(runtime, { vectors, d, k, random });
  let error = 0;
  for (let i = 0; i < count; i++) error += squaredDistance(vectors, i, codebook, codes[i], d);
  // 0.100 for unlimited data; 78 vectors an entry fit themselves a little better.
  const distortion = error / (count * d);
  assert.ok(distortion > 0.09 && distortion < 0.105, `distortion ${distortion}`);
});
