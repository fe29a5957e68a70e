/** The bytes of a model by part, as one bar. */
import { scaleLinear } from "d3-scale";
import { megabytes } from "../format.js";
import { html, type Markup } from "../markup.js";
import { at, figure, WIDTH } from "./axes.js";

export interface BarPart {
  readonly name: string;
  readonly bytes: number;
}

export function partsBar(id: string, parts: readonly BarPart[]): Markup {
  const total = parts.reduce((sum, { bytes }) => sum + bytes, 0);
  const x = scaleLinear()
    .domain([0, total])
    .range([1, WIDTH - 1]);
  let done = 0;
  const bars = parts.map(({ name, bytes }, i) => {
    const from = x(done);
    done += bytes;
    return html`<rect class="part s${i % 6}" x="${at(from)}" y="2" width="${at(Math.max(0.5, x(done) - from))}" height="22"><title>${name}: ${megabytes(bytes)}</title></rect>`;
  });
  const described = parts.map(({ name, bytes }) => `${name} ${megabytes(bytes)}`).join(", ");
  return figure({ id, title: "Bytes by part", description: `${described}.`, height: 26 }, bars);
}
