/** What a report says: folders with the measurements that belong to them. `page.ts` and `card.ts` show it. */
import { resolve } from "node:path";
import { quote } from "../checkpoint/json.js";
import { InputError, UsageError } from "../errors.js";
import type { FolderFacts } from "./folder-facts.js";
import type { EvaluationResult, SpeedResult, TaskScore, TextResult } from "./results.js";

export interface ReportedFolder extends FolderFacts {
  /** Of the compressed model. */
  readonly evaluations: readonly EvaluationResult[];
  /** Of the model that it was made from. */
  readonly original: readonly EvaluationResult[];
  readonly speed: readonly SpeedResult[];
}

export interface Report {
  readonly tool: { readonly name: string; readonly version: string };
  readonly folders: readonly ReportedFolder[];
}

/** A text measured on a model, and what is known of its original on the same windows. */
export interface TextComparison extends TextResult {
  readonly from: string;
  /** Whether the reference was the very model that the folder was made from. */
  readonly referenceIsOriginal: boolean;
  /** Of the reference, or of the original where it was measured alone; null where neither was. */
  readonly perplexityBefore: number | null;
}

/**
 * Gives every measurement to the folder whose manifest it names, or to the folders made from the model that it
 * names; speeds are matched by path. UsageError for a folder given twice, InputError for a measurement of a model
 * that is none of these.
 */
export function joinMeasurements(
  folders: readonly FolderFacts[],
  evaluations: readonly EvaluationResult[],
  speeds: readonly SpeedResult[],
): ReportedFolder[] {
  for (const [i, { manifestSha256, path }] of folders.entries()) {
    const first = folders.findIndex((other) => other.manifestSha256 === manifestSha256);
    if (first < i)
      throw new UsageError(`${folders[first].path} and ${path} are the same model: give it once`);
  }
  const isOf = (folder: FolderFacts, { model }: EvaluationResult) =>
    model.kind === "manifest" && model.sha256 === folder.manifestSha256;
  const isOfOriginal = (folder: FolderFacts, { model }: EvaluationResult) =>
    model.kind === "weights" && model.sha256 === folder.made.source.sha256;
  const isSpeedOf = (folder: FolderFacts, { model }: SpeedResult) => resolve(model) === resolve(folder.path);
  const given = folders.map(({ path }) => path).join(", ");
  for (const result of evaluations) {
    if (folders.some((folder) => isOf(folder, result) || isOfOriginal(folder, result))) continue;
    const { kind, sha256 } = result.model;
    throw new InputError(
      `${result.from} measured another model (${kind} ${sha256.slice(0, 16)}…) than ${given}: measure these again`,
    );
  }
  // A file of bench may hold the original's speed, too.
  for (const { from, model } of speeds)
    if (!speeds.some((other) => other.from === from && folders.some((folder) => isSpeedOf(folder, other))))
      throw new InputError(`${from} measured ${quote(model)} and none of ${given}: measure these`);
  return folders.map((folder) => ({
    ...folder,
    evaluations: evaluations.filter((result) => isOf(folder, result)),
    original: evaluations.filter((result) => isOfOriginal(folder, result)),
    speed: speeds.filter((result) => isSpeedOf(folder, result)),
  }));
}

export function textComparisons(folder: ReportedFolder): TextComparison[] {
  return folder.evaluations.flatMap(({ text, from }) => {
    if (!text) return [];
    const alone = folder.original.find((other) => other.text && textKey(other.text) === textKey(text));
    return [
      {
        ...text,
        from,
        referenceIsOriginal: text.reference?.sha256 === folder.made.source.sha256,
        perplexityBefore: text.reference?.perplexity ?? alone?.text?.perplexity ?? null,
      },
    ];
  });
}

/** Equal for measurements that may be compared: the same windows of the same text. */
export function textKey({ protocol, text, context, windows }: TextResult): string {
  return [protocol, text.sha256, context, windows].join(" ");
}

export function tasksOf(results: readonly EvaluationResult[]): TaskScore[] {
  return results.flatMap(({ tasks }) => tasks);
}

/** Equal for scores that may be compared: the same number of questions of the same file. */
export function taskKey({ name, sha256, n }: TaskScore): string {
  return [name, sha256, n].join(" ");
}

/** Measurements of several folders on one text; the text with the most folders first. */
export interface SharedText {
  readonly text: TextResult;
  readonly points: readonly { readonly folder: ReportedFolder; readonly result: TextComparison }[];
}

export function sharedTexts(folders: readonly ReportedFolder[]): SharedText[] {
  const groups = new Map<string, { folder: ReportedFolder; result: TextComparison }[]>();
  for (const folder of folders)
    for (const result of textComparisons(folder)) {
      const key = textKey(result);
      const points = groups.get(key) ?? [];
      if (points.every((point) => point.folder !== folder)) points.push({ folder, result });
      groups.set(key, points);
    }
  return [...groups.values()]
    .filter((points) => points.length > 1)
    .sort((a, b) => b.length - a.length)
    .map((points) => ({ text: points[0].result, points }));
}
