/** What the runtime itself asks of the kernels. */

/** First address that is free for allocation: constants of the kernels lie below. */
export function heapBase(): usize {
  return __heap_base;
}

/** Does nothing: measures the cost of dispatch. */
export function nothing(): void {}

/** Traps: shows that an error in a worker reaches its owner. */
export function trap(): void {
  unreachable();
}

/** Sets `count` f32 values at `target`. */
export function fill(target: usize, count: i32, value: f32): void {
  const end = target + ((<usize>count) << 2);
  for (let p = target; p < end; p += 4) store<f32>(p, value);
}
