/** Between a coded layer and its manifest entry plus stored bytes, both ways. */
import type { CodedMatrix, StoredTensor } from "../codec/coded.js";
import { type CodedLayer, isTiered } from "./layer.js";
import { type CodedEntry, isTieredEntry, type LayerEntry } from "./manifest.js";

function describeMatrix(matrix: CodedMatrix): CodedEntry {
  const { method, rows, columns, parameters } = matrix;
  return { method, rows, columns, parameters, tensors: [...matrix.tensors.keys()] };
}

/** The manifest entry of a layer: everything but its bytes. */
export function describeLayer(layer: CodedLayer): LayerEntry {
  if (!isTiered(layer)) return describeMatrix(layer);
  const tiers = layer.tiers.map(({ rows, matrix }) => ({ rows, entry: describeMatrix(matrix) }));
  return { rows: layer.rows, columns: layer.columns, tiers };
}

/** The layer of an entry and its stored tensors in the order of `codedEntries`. */
export function restoreLayer(entry: LayerEntry, stored: readonly StoredTensor[]): CodedLayer {
  let next = 0;
  const restore = ({ tensors, ...rest }: CodedEntry): CodedMatrix => ({
    ...rest,
    tensors: new Map(tensors.map((suffix) => [suffix, stored[next++]])),
  });
  if (!isTieredEntry(entry)) return restore(entry);
  const tiers = entry.tiers.map((tier) => ({ rows: tier.rows, matrix: restore(tier.entry) }));
  return { rows: entry.rows, columns: entry.columns, tiers };
}
