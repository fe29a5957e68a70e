/**
 * Compression to a quality instead of a size: `compress` at one size after another until the divergence that it
 * measures on held-out calibration text is just below what was asked for. Tries lie in `<out>.tries/<bits>` until
 * the one that was looked for is renamed to `out`; each is what `compress --bits` makes.
 */
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { syncFolder } from "../checkpoint/safetensors-write.js";
import { bitsRange, type CompressOptions } from "../compress/index.js";
import { exists, withoutSlash } from "../container/disk.js";
import { openFolder } from "../container/reader.js";
import { FolderWriter } from "../container/writer.js";
import { InputError, UsageError } from "../errors.js";
import { refuseUnfinished } from "../training/options.js";
import { compressOnce } from "./once.js";
import { nextBits, type Try } from "./secant.js";

export interface DivergenceOptions extends Omit<CompressOptions, "target" | "method"> {
  readonly calibration: readonly string[];
  /** Largest mean KL(original ‖ compressed) wanted, in nats a token. */
  readonly divergence: number;
  /** Called after each try. */
  readonly onTry?: ((result: Try) => void) | undefined;
}

export interface DivergenceReport extends Try {
  readonly weightBytes: number;
  /** bytes16 / weightBytes */
  readonly ratio: number;
  /** In the order in which they were made. */
  readonly tries: readonly Try[];
}

/** Errors as `compress`; InputError when the highest rates do not reach the divergence. */
export async function compressToDivergence(options: DivergenceOptions): Promise<DivergenceReport> {
  const { divergence: wanted, resume = false, onTry, ...common } = options;
  if (!(wanted > 0 && Number.isFinite(wanted)))
    throw new UsageError(`a divergence must be a number of nats above 0, not ${wanted}`);
  const out = withoutSlash(options.out);
  const folder = `${out}.tries`;
  if (await exists(out)) await FolderWriter.check(out, false);
  await refuseUnfinished(folder, resume);
  const range = await bitsRange(options);
  await mkdir(folder, { recursive: true });
  const tries: (Omit<DivergenceReport, "tries"> & { readonly path: string })[] = [];
  for (let bits = nextBits([], wanted, range); bits !== null; bits = nextBits(tries, wanted, range)) {
    // Upwards, so that the least bits stay in reach; to three digits, so that a resumed run finds the folder.
    bits = Math.ceil(1000 * bits) / 1000;
    const path = join(folder, bits.toFixed(3));
    await compressOnce({ ...common, target: { kind: "bits", bits }, out: path, resume });
    const made = { bits, path, ...(await measured(path)) };
    tries.push(made);
    onTry?.({ bits, divergence: made.divergence });
  }
  const good = tries.filter((t) => t.divergence <= wanted).sort((a, b) => a.weightBytes - b.weightBytes)[0];
  if (!good) {
    const best = tries.reduce((a, b) => (b.divergence < a.divergence ? b : a));
    throw new InputError(
      `a divergence of ${wanted} is out of reach: ${best.bits.toFixed(2)} bits leave ${best.divergence.toFixed(4)} (that folder is ${best.path})`,
    );
  }
  await rename(good.path, out);
  await syncFolder(join(out, ".."));
  await rm(folder, { recursive: true, force: true });
  const { bits, divergence, weightBytes, ratio } = good;
  return {
    ...{ bits, divergence, weightBytes, ratio },
    tries: tries.map((t) => ({ bits: t.bits, divergence: t.divergence })),
  };
}

async function measured(path: string): Promise<{ divergence: number; weightBytes: number; ratio: number }> {
  const folder = await openFolder(path);
  try {
    const { divergence } = (folder.manifest.provenance.measured ?? {}) as { divergence?: unknown };
    if (typeof divergence !== "number")
      throw new InputError("the calibration text is too short to hold some out and measure on it: give more");
    const { weightBytes, bytes16 } = folder;
    return { divergence, weightBytes, ratio: bytes16 / weightBytes };
  } finally {
    await folder.close();
  }
}
