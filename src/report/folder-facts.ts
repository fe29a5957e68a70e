/** What a PocketLLM folder says about itself: sizes, how it was made, what was measured when it was made. */
import { basename, join, resolve } from "node:path";
import { FileSource } from "../checkpoint/file-source.js";
import type { JsonValue } from "../codec/coded.js";
import { hashRange } from "../container/disk.js";
import { type Inspection, inspectFolder } from "../container/inspect.js";
import { MANIFEST_FILE, type Provenance } from "../container/manifest.js";
import { openFolder } from "../container/reader.js";

export interface FolderFacts {
  /** The folder's own name. */
  readonly name: string;
  readonly path: string;
  readonly manifestSha256: string;
  readonly layers: number;
  readonly hiddenSize: number;
  readonly vocabularySize: number;
  readonly contextLength: number;
  readonly inspection: Inspection;
  readonly made: Omit<Provenance, "measured">;
  /** In the order of the model. Empty where the manifest has none. */
  readonly distortion: readonly MatrixDistortion[];
  /** KL(original || compressed) in nats on calibration text that was held out; null where none was measured. */
  readonly calibrationDivergence: number | null;
}

/** What coding did to a matrix, or to rows [start, end) of one. */
export interface MatrixDistortion {
  readonly name: string;
  readonly rows: readonly [number, number];
  /** Squared error of the weights as a share of their square sum. */
  readonly squaredError: number;
  /** The same of the layer's outputs on the calibration text; null where it was coded without. */
  readonly proxyError: number | null;
}

/** InputError or CorruptFileError, one line, for what is no PocketLLM folder. */
export async function readFolderFacts(path: string): Promise<FolderFacts> {
  const folder = await openFolder(path);
  try {
    const inspection = await inspectFolder(path);
    const { measured = {}, ...made } = folder.manifest.provenance;
    const { layers, hiddenSize, vocabularySize, contextLength } = folder.config;
    const { errors, divergence } = measured as { readonly [key: string]: JsonValue | undefined };
    return {
      name: basename(resolve(path)),
      path,
      manifestSha256: await hashFile(join(path, MANIFEST_FILE)),
      ...{ layers, hiddenSize, vocabularySize, contextLength },
      inspection,
      made,
      distortion: inspection.tensors.flatMap(({ name, shape, tiers }) =>
        tiers ? distortionOf(name, shape[0], tiers, member(errors, name)) : [],
      ),
      calibrationDivergence: isNonNegative(divergence) ? divergence : null,
    };
  } finally {
    await folder.close();
  }
}

/** `measured` may hold anything: what is not in the form that `compress` writes is left out. */
function distortionOf(
  name: string,
  rows: number,
  tiers: readonly { readonly rows: readonly [number, number] }[],
  entry: JsonValue | undefined,
): MatrixDistortion[] {
  const squared = member(entry, "squaredError");
  const proxy = member(entry, "proxyError");
  if (!Array.isArray(squared) || !squared.every(isNonNegative)) return [];
  const ranges = squared.length === 1 ? [{ rows: [0, rows] as const }] : tiers;
  if (squared.length !== ranges.length) return [];
  return squared.map((squaredError, i) => {
    const proxyError = Array.isArray(proxy) ? proxy[i] : null;
    return {
      name,
      rows: ranges[i].rows,
      squaredError,
      proxyError: isNonNegative(proxyError) ? proxyError : null,
    };
  });
}

function member(value: JsonValue | undefined, key: string): JsonValue | undefined {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined;
  return Object.hasOwn(value, key) ? (value as { readonly [key: string]: JsonValue })[key] : undefined;
}

function isNonNegative(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}

async function hashFile(path: string): Promise<string> {
  const file = await FileSource.open(path);
  try {
    return await hashRange(file, 0, file.size);
  } finally {
    await file.close();
  }
}
