/** `compress` as a part of something longer: what an interrupted run has finished is not made again. */
import { type CompressOptions, type CompressReport, compress, isMadeBy } from "../compress/index.js";
import { exists } from "../container/disk.js";
import { openFolder } from "../container/reader.js";
import { UsageError } from "../errors.js";
import { refuseUnfinished } from "../training/options.js";

/** Null when `out` was there already, made with the same options. UsageError when with others. */
export async function compressOnce(options: CompressOptions): Promise<CompressReport | null> {
  const { out, resume } = options;
  if (!(await exists(out))) return await compress(options);
  await refuseUnfinished(out, resume);
  const folder = await openFolder(out);
  try {
    if (!(await isMadeBy(folder.manifest.provenance, options)))
      throw new UsageError(`${out} is of a run with other options: give the same ones, or delete it`);
  } finally {
    await folder.close();
  }
  return null;
}
