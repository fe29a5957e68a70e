// Work that threads take as they come to it: whoever starts late, or has a slower core, does less. Not exported from
// the module.

/** The next number of a counter that all threads share. */
export function take(counter: usize): i32 {
  if (ASC_FEATURE_THREADS) return atomic.add<i32>(counter, 1);
  const next = load<i32>(counter);
  store<i32>(counter, next + 1);
  return next;
}
