/**
 * Calibration text as token windows: the files' tokens cut into windows, shuffled within each file by the
 * seed and taken from the files in turn, so that a short budget still sees every file.
 */
import { InputError } from "../errors.js";
import { Random } from "../random.js";
import { readCorpus } from "../text/corpus.js";
import type { Tokenizer } from "../text/tokenizer.js";

export interface CalibrationOptions {
  /** Tokens of a window. */
  readonly context: number;
  /** Number of windows wanted; fewer when the files have fewer. */
  readonly windows: number;
  readonly seed: number;
}

/** Throws InputError when the files together do not fill one window. */
export async function calibrationWindows(
  files: readonly string[],
  tokenizer: Tokenizer,
  { context, windows, seed }: CalibrationOptions,
): Promise<Int32Array[]> {
  const random = new Random(seed);
  const body = tokenizer.addsBos ? context - 1 : context;
  const byFile: Int32Array[][] = [];
  for (const file of files) {
    const ids = tokenizer.encodeLong((await readCorpus(file)).join("\n\n"), { addSpecialTokens: false });
    const cut: Int32Array[] = [];
    for (let start = 0; start + body <= ids.length; start += body) {
      const window = new Int32Array(context);
      if (tokenizer.addsBos) window[0] = tokenizer.bosTokenId ?? 0;
      window.set(ids.slice(start, start + body), context - body);
      cut.push(window);
    }
    random.shuffle(cut);
    byFile.push(cut);
  }
  const out: Int32Array[] = [];
  for (let i = 0; out.length < windows && byFile.some((w) => i < w.length); i++) {
    for (const cut of byFile) if (i < cut.length && out.length < windows) out.push(cut[i]);
  }
  if (out.length === 0) {
    throw new InputError(
      `calibration text is shorter than one window of ${context} tokens: give more text, or use --data-free`,
    );
  }
  return out;
}
