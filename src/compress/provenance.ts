/** How a folder is made: everything that its bytes depend on, and nothing else. */
import type { Arithmetic } from "../compute/index.js";
import { describeFiles } from "../container/input-files.js";
import { canonicalJson } from "../container/json.js";
import type { Provenance } from "../container/manifest.js";
import { TOOL, VERSION } from "../version.js";
import { openSource } from "./merged.js";
import { type CompressOptions, resolveOptions } from "./options.js";
import type { Planning } from "./prepare.js";

export async function describe(
  { checkpoint, options, result }: Planning,
  files: readonly string[],
  arithmetic: Arithmetic,
): Promise<Provenance> {
  const calibration = await describeFiles(files);
  options.onProgress?.({ stage: "hashing the source", done: 0, total: 1 });
  return {
    tool: TOOL,
    toolVersion: VERSION,
    options: {
      target: { ...result.target },
      method: result.method,
      seed: result.seed,
      arithmetic,
      ...(checkpoint.adapter && { adapter: checkpoint.adapter }),
      ...(result.without.length > 0 && { without: [...result.without] }),
      ...(files.length > 0 && options.absorb && { absorb: options.absorb.description }),
      ...(files.length > 0 && {
        calibrationTokens: result.calibrationTokens,
        calibrationContext: result.calibrationContext,
      }),
    },
    source: { format: checkpoint.format, sha256: await checkpoint.hash(options.signal) },
    calibration,
  };
}

/** Whether a folder is what `compress` with these options makes, on this or another machine. */
export async function isMadeBy(
  { measured: _, ...provenance }: Provenance,
  options: CompressOptions,
): Promise<boolean> {
  const checkpoint = await openSource(options);
  try {
    const result = resolveOptions(options, checkpoint.config);
    const { arithmetic } = provenance.options;
    const files = result.method === "trellis" ? (options.calibration ?? []) : [];
    const described = await describe({ checkpoint, options, result }, files, arithmetic as Arithmetic);
    return canonicalJson({ ...described }) === canonicalJson({ ...provenance });
  } finally {
    await checkpoint.close();
  }
}
