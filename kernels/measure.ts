// The machine's own limits, for bench/decode.mjs: what kernels are compared with.

import { lookUp } from "./trellis-window";

/** 8 independent chains of `count` byte look-ups each: the shuffle rate. Returns something of the result. */
export function lookUps(count: i32, seed: i32): i32 {
  const table = i8x16.splat(<i8>(seed & 7));
  let a = table;
  let b = table;
  let c = table;
  let d = table;
  let e = table;
  let f = table;
  let g = table;
  let h = table;
  for (; count > 0; count--) {
    a = lookUp(table, a);
    b = lookUp(table, b);
    c = lookUp(table, c);
    d = lookUp(table, d);
    e = lookUp(table, e);
    f = lookUp(table, f);
    g = lookUp(table, g);
    h = lookUp(table, h);
  }
  const all = v128.xor(v128.xor(v128.xor(a, b), v128.xor(c, d)), v128.xor(v128.xor(e, f), v128.xor(g, h)));
  return i32x4.extract_lane(all, 0);
}

/** Reads `bytes` (a multiple of 64) from `from`: the memory's bandwidth. Returns something of what is there. */
export function readMemory(from: usize, bytes: i32): i32 {
  let a = i8x16.splat(0);
  let b = a;
  const end = from + <usize>bytes;
  for (; from < end; from += 64) {
    a = v128.xor(a, v128.xor(v128.load(from), v128.load(from, 16)));
    b = v128.xor(b, v128.xor(v128.load(from, 32), v128.load(from, 48)));
  }
  return i32x4.extract_lane(v128.xor(a, b), 0);
}
