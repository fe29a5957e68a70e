/** Timing on a machine that others use too. */

/** A function that gives the seconds of the fastest run within `seconds`, after one that does not count. */
export function bestOf(seconds: number): (run: () => void) => number {
  return (run) => {
    run();
    const end = performance.now() + 1000 * seconds;
    let fastest = Number.POSITIVE_INFINITY;
    do {
      const start = performance.now();
      run();
      fastest = Math.min(fastest, performance.now() - start);
    } while (performance.now() < end);
    return fastest / 1000;
  };
}

/** The middle of the sorted values, the lower of two. RangeError without any. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError("no values have no median");
  return values.toSorted((a, b) => a - b)[(values.length - 1) >> 1];
}
