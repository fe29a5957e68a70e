/** Size against quality of several models: who is smaller and better than whom. */
import { scaleLinear } from "d3-scale";
import { curveStepAfter, line } from "d3-shape";
import { html, type Markup } from "../markup.js";
import { at, bottomAxis, figure, leftAxis, mark, WIDTH } from "./axes.js";

export interface FrontierPoint {
  readonly name: string;
  /** Which mark. */
  readonly series: number;
  /** Megabytes. */
  readonly size: number;
  /** Smaller is better. */
  readonly value: number;
  readonly stderr: number | null;
}

export interface FrontierOptions {
  readonly id: string;
  readonly title: string;
  readonly valueLabel: string;
  readonly points: readonly FrontierPoint[];
}

const HEIGHT = 250;
const LEFT = 44;
const RIGHT = WIDTH - 14;
const TOP = 26;
const BOTTOM = HEIGHT - 34;

export function frontierPlot({ id, title, valueLabel, points }: FrontierOptions): Markup {
  const sizes = points.map(({ size }) => size);
  const highest = Math.max(...points.map(({ value, stderr }) => value + (stderr ?? 0)));
  const x = scaleLinear().domain(padded(sizes)).range([LEFT, RIGHT]).nice(4);
  const y = scaleLinear().domain([0, highest]).range([BOTTOM, TOP]).nice(5);
  const front = onFront(points);
  const names = front.map(({ name }) => name).join(", ");
  const step = line<FrontierPoint>(
    (point) => x(point.size),
    (point) => y(point.value),
  ).curve(curveStepAfter);
  return figure(
    {
      id,
      title,
      description: `${points.length} models by size and ${valueLabel}. None is both smaller and better than: ${names}. The numbers are in the table above.`,
      height: HEIGHT,
    },
    html`${bottomAxis(x, BOTTOM, TOP, "weights, MB", 4)}${leftAxis(y, LEFT, RIGHT, valueLabel)}<path class="front" d="${step(front)}"/>${points.map(
      (point) =>
        html`${errorBar(x(point.size), point, y)}${mark(
          point.series,
          x(point.size),
          y(point.value),
          `${point.name}: ${point.size.toFixed(2)} MB, ${valueLabel} ${point.value.toFixed(3)}`,
        )}`,
    )}`,
  );
}

function errorBar(x: number, { value, stderr }: FrontierPoint, y: (value: number) => number): Markup | null {
  if (stderr === null) return null;
  return html`<line class="error" x1="${at(x)}" x2="${at(x)}" y1="${at(y(Math.max(0, value - stderr)))}" y2="${at(y(value + stderr))}"/>`;
}

/** Points that no other one beats in both, by size. */
export function onFront(points: readonly FrontierPoint[]): FrontierPoint[] {
  const bySize = [...points].sort((a, b) => a.size - b.size || a.value - b.value);
  const front: FrontierPoint[] = [];
  for (const point of bySize)
    if (point.value < (front.at(-1)?.value ?? Number.POSITIVE_INFINITY)) front.push(point);
  return front;
}

/** The range of `values`, wider on each side: by 8 %, and by 5 % of the largest so that equal sizes look equal. */
function padded(values: readonly number[]): [number, number] {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const room = Math.max(0.08 * (high - low), 0.05 * high);
  return [Math.max(0, low - room), high + room];
}
