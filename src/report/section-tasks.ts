/** Task scores of all models and of their originals, compared where the questions are the same. */
import { percentWithError } from "./format.js";
import { html, type Markup } from "./markup.js";
import { type TaskMark, type TaskRow, tasksPlot } from "./plots/tasks.js";
import { type ReportedFolder, taskKey, tasksOf } from "./report.js";
import type { TaskScore } from "./results.js";
import { key } from "./section-compare.js";
import { table } from "./table.js";

interface Scored {
  readonly model: string;
  readonly series: number;
  readonly score: TaskScore;
}

export function tasksSection(folders: readonly ReportedFolder[]): Markup | null {
  const byTask = new Map<string, Scored[]>();
  const add = (model: string, series: number, scores: readonly TaskScore[]) => {
    for (const score of scores) {
      const group = byTask.get(taskKey(score)) ?? [];
      byTask.set(taskKey(score), group);
      // An original of several folders is shown once.
      if (!group.some((other) => other.model === model && other.series === series))
        group.push({ model, series, score });
    }
  };
  for (const [i, folder] of folders.entries()) add(folder.name, i, tasksOf(folder.evaluations));
  for (const folder of folders) add("original", folders.length, tasksOf(folder.original));
  if (byTask.size === 0) return null;
  const groups = [...byTask.values()];
  const rows = groups.map((group): TaskRow => ({ name: group[0].score.name, marks: group.map(asMark) }));
  return html`<section><h2>Tasks</h2><div class="plots">${tasksPlot("tasks", "Accuracy, one standard error to each side", rows)}</div>${table(
    {
      caption: "Share of questions with the right answer, ± one standard error",
      columns: ["task", "model", "acc", "acc_norm", "questions"],
      rows: groups.flatMap((group) =>
        group.map(({ model, series, score }) => [
          score.name,
          html`${key(series)}${model}`,
          percentWithError(score.acc, score.stderr),
          score.accNorm !== null && percentWithError(score.accNorm, score.accNormStderr),
          score.n,
        ]),
      ),
    },
  )}</section>
`;
}

function asMark({ model, series, score }: Scored): TaskMark {
  return { model, series, score: score.acc, stderr: score.stderr };
}
