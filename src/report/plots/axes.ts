/** What the plots share: their frame with title and text alternative, axes, marks that differ in shape and colour. */
import type { ScaleContinuousNumeric } from "d3-scale";
import { symbol, symbols } from "d3-shape";
import { type Content, html, type Markup } from "../markup.js";

export type NumberScale = ScaleContinuousNumeric<number, number>;

/** The width that plots are drawn for: that of a phone, so that their letters are legible on one. */
export const WIDTH = 360;

export interface PlotFrame {
  /** Unique in the page. */
  readonly id: string;
  readonly title: string;
  /** What is seen, in words. */
  readonly description: string;
  readonly width?: number;
  readonly height: number;
}

export function figure(frame: PlotFrame, content: Content): Markup {
  const { id, title, description, width = WIDTH, height } = frame;
  return html`<figure><figcaption>${title}</figcaption>
<svg viewBox="0 0 ${width} ${height}" role="img" aria-labelledby="${id}-t ${id}-d"><title id="${id}-t">${title}</title><desc id="${id}-d">${description}</desc>
${content}</svg></figure>
`;
}

/** A horizontal axis at `y` with grid lines up to `top`. */
export function bottomAxis(scale: NumberScale, y: number, top: number, label: string, count = 5): Markup {
  const [left, right] = scale.range();
  const format = scale.tickFormat(count);
  return html`<g class="axis">${marked(scale, count, format).map(
    ([value, text]) =>
      html`<line class="grid" x1="${at(scale(value))}" x2="${at(scale(value))}" y1="${y}" y2="${top}"/><text x="${at(scale(value))}" y="${y + 13}" text-anchor="middle">${text}</text>`,
  )}<line x1="${left}" x2="${right}" y1="${y}" y2="${y}"/><text class="label" x="${(left + right) / 2}" y="${y + 27}" text-anchor="middle">${label}</text></g>
`;
}

/** A vertical axis at `x` with grid lines to `right`; its label stands above. */
export function leftAxis(scale: NumberScale, x: number, right: number, label: string, count = 5): Markup {
  const [bottom, top] = scale.range();
  const format = scale.tickFormat(count);
  return html`<g class="axis">${marked(scale, count, format).map(
    ([value, text]) =>
      html`<line class="grid" y1="${at(scale(value))}" y2="${at(scale(value))}" x1="${x}" x2="${right}"/><text x="${x - 5}" y="${at(scale(value) + 3.5)}" text-anchor="end">${text}</text>`,
  )}<line x1="${x}" x2="${x}" y1="${bottom}" y2="${top}"/><text class="label" x="2" y="${top - 8}">${label}</text></g>
`;
}

/** Ticks that have a text: a logarithmic scale names only some of its own. */
function marked(
  scale: NumberScale,
  count: number,
  format: (value: number) => string,
): (readonly [number, string])[] {
  return scale
    .ticks(count)
    .map((value) => [value, format(value)] as const)
    .filter(([, text]) => text !== "");
}

/** The mark of the i-th series, 0 … 6 and round again; what a text reader hears is `label`. */
export function mark(series: number, x: number, y: number, label: string): Markup {
  const path = symbol(symbols[series % symbols.length], 52)() ?? "";
  return html`<path class="mark s${series % 6}" transform="translate(${at(x)},${at(y)})" d="${path}"><title>${label}</title></path>`;
}

/** A coordinate: a tenth of a unit is less than a pixel. */
export function at(value: number): string {
  return String(Math.round(10 * value) / 10);
}
