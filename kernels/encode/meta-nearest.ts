// Nearest codebook entry of many vectors (method "meta", and k-means): argmin_k |z - c_k|^2, computed as the
// argmax of z.c_k - |c_k|^2 / 2. This search is 80 to 95 % of the arithmetic of training.
//
// Vectors come in blocks of 16 lanes, [block][d][16]; d is 4 or 8. The table is [entries][d + 1]: the entry,
// then -|c|^2 / 2; `entries` is a multiple of 16 (pad with a bias of -3e38). One 4-lane group of z stays in
// registers while 64 entries pass by, each number of the table splatted: 2 d arithmetic instructions and one
// max for 4 distances. Only the winning run of 16 entries is remembered there (3 instructions a run); the
// entry inside the run is found afterwards with the same operations in the same order, so equal is exact.
// Ties go to the lowest index.

const RUN: i32 = 16;
/** Entries that stay in L1 while the four lane groups of a block pass over them (2.3 KB at d = 8). */
const CHUNK: i32 = 64;

// Two chains of d / 2 terms each: one chain of d waits for its own additions (28 GFLOP/s against 33), a full tree
// needs more registers than there are (11).

// @ts-ignore: decorator
@inline
function score4(c: usize, z0: v128, z1: v128, z2: v128, z3: v128): v128 {
  let s = f32x4.add(v128.load32_splat(c, 16), f32x4.mul(v128.load32_splat(c), z0));
  s = f32x4.add(s, f32x4.mul(v128.load32_splat(c, 4), z1));
  let t = f32x4.mul(v128.load32_splat(c, 8), z2);
  t = f32x4.add(t, f32x4.mul(v128.load32_splat(c, 12), z3));
  return f32x4.add(s, t);
}

// @ts-ignore: decorator
@inline
function score8(
  c: usize,
  z0: v128,
  z1: v128,
  z2: v128,
  z3: v128,
  z4: v128,
  z5: v128,
  z6: v128,
  z7: v128,
): v128 {
  let s = f32x4.add(v128.load32_splat(c, 32), f32x4.mul(v128.load32_splat(c), z0));
  s = f32x4.add(s, f32x4.mul(v128.load32_splat(c, 4), z1));
  s = f32x4.add(s, f32x4.mul(v128.load32_splat(c, 8), z2));
  s = f32x4.add(s, f32x4.mul(v128.load32_splat(c, 12), z3));
  let t = f32x4.mul(v128.load32_splat(c, 16), z4);
  t = f32x4.add(t, f32x4.mul(v128.load32_splat(c, 20), z5));
  t = f32x4.add(t, f32x4.mul(v128.load32_splat(c, 24), z6));
  t = f32x4.add(t, f32x4.mul(v128.load32_splat(c, 28), z7));
  return f32x4.add(s, t);
}

/**
 * The first entry of the run at `c` whose score is exactly `best`, for one lane at `z` (stride 16 floats): the
 * sums of score4 and score8 in their order. 0 if there is none, which only NaN brings about.
 */
function entryOfRun(c: usize, d: i32, z: usize, best: f32): i32 {
  const half = d >> 1;
  for (let e = 0; e < RUN; e++) {
    let s = load<f32>(c + ((<usize>d) << 2)) + load<f32>(c) * load<f32>(z);
    for (let i: usize = 1; i < <usize>half; i++) s += load<f32>(c + (i << 2)) * load<f32>(z + (i << 6));
    let t = load<f32>(c + ((<usize>half) << 2)) * load<f32>(z + ((<usize>half) << 6));
    for (let i: usize = half + 1; i < <usize>d; i++) t += load<f32>(c + (i << 2)) * load<f32>(z + (i << 6));
    if (s + t == best) return e;
    c += (<usize>(d + 1)) << 2;
  }
  return 0;
}

/** Passes entries chunk .. last - 1 over one group of 4 lanes; `score` and `code` hold its best run so far. */
function pass4(z: usize, c: usize, chunk: i32, last: i32, score: usize, code: usize): void {
  const z0 = v128.load(z);
  const z1 = v128.load(z, 64);
  const z2 = v128.load(z, 128);
  const z3 = v128.load(z, 192);
  let best = v128.load(score);
  let run = v128.load(code);
  for (let e = chunk; e < last; e += RUN) {
    let most = score4(c, z0, z1, z2, z3);
    c += 20;
    for (let triple = 0; triple < 5; triple++) {
      most = f32x4.pmax(most, score4(c, z0, z1, z2, z3));
      c += 20;
      most = f32x4.pmax(most, score4(c, z0, z1, z2, z3));
      c += 20;
      most = f32x4.pmax(most, score4(c, z0, z1, z2, z3));
      c += 20;
    }
    run = v128.bitselect(i32x4.splat(e), run, f32x4.gt(most, best));
    best = f32x4.pmax(best, most);
  }
  v128.store(score, best);
  v128.store(code, run);
}

/** Passes entries chunk .. last - 1 over one group of 4 lanes; `score` and `code` hold its best run so far. */
function pass8(z: usize, c: usize, chunk: i32, last: i32, score: usize, code: usize): void {
  const z0 = v128.load(z);
  const z1 = v128.load(z, 64);
  const z2 = v128.load(z, 128);
  const z3 = v128.load(z, 192);
  const z4 = v128.load(z, 256);
  const z5 = v128.load(z, 320);
  const z6 = v128.load(z, 384);
  const z7 = v128.load(z, 448);
  let best = v128.load(score);
  let run = v128.load(code);
  for (let e = chunk; e < last; e += RUN) {
    let most = score8(c, z0, z1, z2, z3, z4, z5, z6, z7);
    c += 36;
    for (let triple = 0; triple < 5; triple++) {
      most = f32x4.pmax(most, score8(c, z0, z1, z2, z3, z4, z5, z6, z7));
      c += 36;
      most = f32x4.pmax(most, score8(c, z0, z1, z2, z3, z4, z5, z6, z7));
      c += 36;
      most = f32x4.pmax(most, score8(c, z0, z1, z2, z3, z4, z5, z6, z7));
      c += 36;
    }
    run = v128.bitselect(i32x4.splat(e), run, f32x4.gt(most, best));
    best = f32x4.pmax(best, most);
  }
  v128.store(score, best);
  v128.store(code, run);
}

/**
 * codes[block][16] = index of the nearest entry, scores[block][16] = z.c - |c|^2 / 2 of it, for blocks
 * first .. end - 1.
 */
export function metaNearest(
  z: usize,
  table: usize,
  entries: i32,
  d: i32,
  codes: usize,
  scores: usize,
  first: i32,
  end: i32,
): void {
  const stride = (<usize>(d + 1)) << 2;
  for (let block = <usize>first; block < <usize>end; block++) {
    const zBlock = z + ((block * <usize>d) << 6);
    const code = codes + (block << 6);
    const score = scores + (block << 6);
    for (let lane: usize = 0; lane < 64; lane += 16) {
      v128.store(score + lane, f32x4.splat(-Infinity));
      v128.store(code + lane, i32x4.splat(0));
    }
    for (let chunk = 0; chunk < entries; chunk += CHUNK) {
      const last = min(entries, chunk + CHUNK);
      const c = table + <usize>chunk * stride;
      for (let lane: usize = 0; lane < 64; lane += 16) {
        if (d == 4) pass4(zBlock + lane, c, chunk, last, score + lane, code + lane);
        else pass8(zBlock + lane, c, chunk, last, score + lane, code + lane);
      }
    }
    for (let lane: usize = 0; lane < 64; lane += 4) {
      const run = load<i32>(code + lane);
      const entry = entryOfRun(table + <usize>run * stride, d, zBlock + lane, load<f32>(score + lane));
      store<i32>(code + lane, run + entry);
    }
  }
}
