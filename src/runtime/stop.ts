/**
 * Finds stop strings in text that comes in pieces. Text that may be the beginning of a stop string is held
 * back until it is known not to be one.
 */
export class StopMatcher {
  readonly #stops: readonly string[];
  #held = "";
  #stopped = false;

  /** Empty strings are ignored: they would stop before the first character. */
  constructor(stops: readonly string[]) {
    this.#stops = stops.filter((stop) => stop.length > 0);
  }

  /**
   * The text that can be shown now. With `stopped` the earliest stop string was found: `text` ends before
   * it, and what came after it is dropped.
   */
  push(piece: string): { readonly text: string; readonly stopped: boolean } {
    const text = this.#held + piece;
    const found = this.#stops.map((stop) => text.indexOf(stop)).filter((index) => index >= 0);
    if (found.length > 0) {
      this.#held = "";
      this.#stopped = true;
      return { text: text.slice(0, Math.min(...found)), stopped: true };
    }
    const safe = text.length - Math.max(0, ...this.#stops.map((stop) => overlap(text, stop)));
    this.#held = text.slice(safe);
    return { text: text.slice(0, safe), stopped: false };
  }

  /** The text that remains to be shown when `piece` is the last: nothing after a stop string. */
  finish(piece: string): string {
    if (this.#stopped) return "";
    const { text, stopped } = this.push(piece);
    return stopped ? text : text + this.#held;
  }
}

/** Length of the longest end of `text` that a stop string begins with, short of the whole stop string. */
function overlap(text: string, stop: string): number {
  for (let length = Math.min(text.length, stop.length - 1); length > 0; length--) {
    if (stop.startsWith(text.slice(-length))) return length;
  }
  return 0;
}
