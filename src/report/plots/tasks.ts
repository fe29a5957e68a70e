/** Accuracy on tasks with error bars: a row a task, a mark a model. */
import { scaleLinear } from "d3-scale";
import { percentWithError } from "../format.js";
import { html, type Markup } from "../markup.js";
import { at, bottomAxis, figure, mark, WIDTH } from "./axes.js";

export interface TaskMark {
  readonly model: string;
  readonly series: number;
  /** 0 … 1. */
  readonly score: number;
  readonly stderr: number | null;
}

export interface TaskRow {
  readonly name: string;
  readonly marks: readonly TaskMark[];
}

const LEFT = 104;
const TOP = 6;

export function tasksPlot(id: string, title: string, rows: readonly TaskRow[]): Markup {
  const heights = rows.map(({ marks }) => 12 + 13 * marks.length);
  const bottom = TOP + heights.reduce((a, b) => a + b, 0);
  const x = scaleLinear()
    .domain([0, 100])
    .range([LEFT, WIDTH - 12]);
  let y = TOP;
  const drawn = rows.map(({ name, marks }, row) => {
    const middle = y + heights[row] / 2;
    const lines = marks.map(({ model, series, score, stderr }, i) => {
      const height = y + 12 + 13 * i;
      const low = x(Math.max(0, 100 * (score - (stderr ?? 0))));
      const high = x(Math.min(100, 100 * (score + (stderr ?? 0))));
      return html`<line class="error" x1="${at(low)}" x2="${at(high)}" y1="${height}" y2="${height}"/>${mark(series, x(100 * score), height, `${name}, ${model}: ${percentWithError(score, stderr)}`)}`;
    });
    y += heights[row];
    const short = name.length > 16 ? `${name.slice(0, 15)}…` : name;
    return html`<text class="tick" x="${LEFT - 7}" y="${at(middle + 4)}" text-anchor="end">${short}</text>${lines}<line class="grid" x1="${LEFT}" x2="${WIDTH - 12}" y1="${y}" y2="${y}"/>`;
  });
  return figure(
    {
      id,
      title,
      description: `${rows.length} tasks. The bars are one standard error to each side; the numbers are in the table below.`,
      height: bottom + 34,
    },
    html`${bottomAxis(x, bottom, TOP, "accuracy, %")}${drawn}`,
  );
}
