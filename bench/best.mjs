/** Timing on a machine that others use too: the fastest of many runs. */

/** A function that gives the seconds of the fastest run within `seconds`, after one that does not count. */
export function bestOf(seconds) {
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
