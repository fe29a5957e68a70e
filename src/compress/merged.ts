/** The model that is compressed: a checkpoint, with an adapter merged into it where one is given. */
import { mergePair } from "../adapter/adapter.js";
import { openAdapter } from "../adapter/open.js";
import type { Checkpoint } from "../checkpoint/checkpoint.js";
import { openCheckpoint } from "../checkpoint/open.js";
import { overlay } from "../checkpoint/overlay.js";

export interface CompressionSource extends Checkpoint {
  /** What was merged: SHA-256 over the adapter's two files. */
  readonly adapter?: { readonly sha256: string } | undefined;
}

/** Errors as `openCheckpoint` and `openAdapter`; close the source when done. */
export async function openSource({
  source,
  adapter,
}: {
  readonly source: string;
  readonly adapter?: string | undefined;
}): Promise<CompressionSource> {
  const checkpoint = await openCheckpoint(source);
  if (adapter === undefined) return checkpoint;
  try {
    const { pairs, scale, sha256 } = await openAdapter(adapter, checkpoint.config);
    const merged = overlay(checkpoint, {
      async read(name) {
        const values = await checkpoint.read(name);
        const pair = pairs.get(name.replace(/\.weight$/, ""));
        if (pair && name.endsWith(".weight")) mergePair(values, pair, scale);
        return values;
      },
      close: () => checkpoint.close(),
    });
    return { ...merged, adapter: { sha256 } };
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}
