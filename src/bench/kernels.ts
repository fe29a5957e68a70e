/**
 * The kernel of one token on each shape and rate of a folder's coded matrices, against what the machine could do.
 * One thread, best times: a call takes microseconds, between two turns of other programs.
 */
import type { TrellisWeights } from "../compute/backend.js";
import { trellisShape } from "../compute/checks.js";
import { WasmBackend } from "../compute/wasm/backend.js";
import { codedLinear } from "../container/linear.js";
import { openFolder } from "../container/reader.js";
import { bestOf } from "./best.js";

export interface MachineLimits {
  /** Look-ups of 16 bytes a second. */
  readonly lookUps: number;
  /** Bytes read a second, of 32 MiB. */
  readonly bandwidth: number;
}

export interface KernelSpeed {
  readonly rows: number;
  readonly columns: number;
  /** Bits of codes in memory for each weight; codes of 3 bits have 4 there. */
  readonly bits: number;
  /** Matrices, or parts of matrices, of this kind in the model. */
  readonly count: number;
  readonly microseconds: number;
  readonly gweightsPerSecond: number;
  /** The time that its look-ups, or reading its codes, would take alone, over its time: 0 to 1. */
  readonly ofLookUps: number;
  readonly ofMemory: number;
}

export interface KernelReport extends MachineLimits {
  readonly kernels: readonly KernelSpeed[];
}

/** Byte shuffles of a vector: two tables of two bytes and two maps, for each of a pair's groups. */
export const LOOK_UPS_PER_STEP = 12;
const SECONDS_EACH = 0.1;

export function measureLimits({ runtime }: WasmBackend): MachineLimits {
  const best = bestOf(SECONDS_EACH);
  const count = 20_000;
  const lookUps = (8 * count) / best(() => runtime.exports["lookUps"](count, 3));
  const bytes = 1 << 25;
  const memory = runtime.allocate(bytes);
  // Pages that nothing was written to are all the same page of zeros, and read from L1.
  runtime.u8(memory, bytes).fill(1);
  const bandwidth = bytes / best(() => runtime.exports["readMemory"](memory, bytes));
  runtime.free(memory);
  return { lookUps, bandwidth };
}

/** What share of `seconds` the look-ups and the reading of a matrix need at least. */
export function shareOfLimits(
  { steps, pairs, codes }: Pick<TrellisWeights, "steps" | "codes"> & { readonly pairs: number },
  { lookUps, bandwidth }: MachineLimits,
  seconds: number,
): { ofLookUps: number; ofMemory: number } {
  return {
    ofLookUps: (LOOK_UPS_PER_STEP * steps * pairs) / lookUps / seconds,
    ofMemory: codes.byteLength / bandwidth / seconds,
  };
}

/** Null for a model without coded matrices that tokens go through (originals, folders of `meta`). */
export async function measureKernels(path: string): Promise<KernelReport | null> {
  const folder = await openFolder(path).catch(() => null);
  if (!folder) return null;
  const backend = await WasmBackend.create({ threads: 1 });
  try {
    const limits = measureLimits(backend);
    const best = bestOf(SECONDS_EACH);
    const found = new Map<string, KernelSpeed>();
    for (const name of folder.layers.keys()) {
      const linear = codedLinear(backend, await folder.coded(name), undefined, name);
      for (const { weight, rotation } of linear.coded ?? []) {
        const { rows, columns } = weight;
        const { pairs } = trellisShape(weight);
        const bits = (8 * pairs) / columns;
        const key = [rows, columns, weight.widths.join()].join(" ");
        const known = found.get(key);
        if (known) {
          found.set(key, { ...known, count: known.count + 1 });
          continue;
        }
        const [x, y] = [backend.allocate(columns), backend.allocate(rows)];
        backend.write(
          x,
          Float32Array.from({ length: columns }, (_, i) => Math.sin(i)),
        );
        const products = backend.tokenProducts({ x, rotation, products: [{ weight, y }] });
        const seconds = best(() => products.run());
        found.set(key, {
          ...{ rows, columns, bits, count: 1, microseconds: 1e6 * seconds },
          gweightsPerSecond: (1e-9 * rows * columns) / seconds,
          ...shareOfLimits({ ...weight, pairs }, limits, seconds),
        });
        products.free();
        backend.free(x);
        backend.free(y);
      }
      linear.free();
    }
    return found.size === 0 ? null : { ...limits, kernels: [...found.values()] };
  } finally {
    await folder.close();
    await backend.close();
  }
}
