/** A number for each matrix of each layer as shades of one colour: a row a kind of matrix, a column a layer. */
import { scaleLinear } from "d3-scale";
import { html, type Markup } from "../markup.js";
import { at, figure, WIDTH } from "./axes.js";

export interface LayerValue {
  /** Such as "q_proj". */
  readonly kind: string;
  readonly layer: number;
  readonly value: number;
}

export interface LayerGridOptions {
  readonly id: string;
  readonly title: string;
  /** After a number: "bits". */
  readonly unit: string;
  readonly format: (value: number) => string;
  readonly values: readonly LayerValue[];
}

const LEFT = 62;
const ROW = 17;
const LEGEND = 34;

/** Null where there is nothing to show. */
export function layerGrid({ id, title, unit, format, values }: LayerGridOptions): Markup | null {
  if (values.length === 0) return null;
  const kinds = [...new Set(values.map(({ kind }) => kind))];
  const layers = Math.max(...values.map(({ layer }) => layer)) + 1;
  const low = values.reduce((a, b) => (b.value < a.value ? b : a)).value;
  const high = values.reduce((a, b) => (b.value > a.value ? b : a)).value;
  // Half a scale of equal numbers, so that a cell is never without colour.
  const shade = scaleLinear()
    .domain(low === high ? [low - 1, high + 1] : [low, high])
    .range([0.08, 1]);
  const x = scaleLinear()
    .domain([0, layers])
    .range([LEFT, WIDTH - 2]);
  const gap = layers > 60 ? 0 : 0.8;
  const bottom = kinds.length * ROW;
  const every = Math.ceil(layers / 10 / 5) * 5;
  const numbered = Array.from({ length: Math.ceil(layers / every) }, (_, i) => i * every);
  const legend = [0, 0.25, 0.5, 0.75, 1].map((part) => low + part * (high - low));
  return figure(
    {
      id,
      title,
      description: `${layers} layers, ${kinds.length} matrices each, from ${format(low)} to ${format(high)} ${unit}. The numbers are in the table below.`,
      height: bottom + 18 + LEGEND,
    },
    html`${kinds.map(
      (kind, row) =>
        html`<text class="tick" x="${LEFT - 5}" y="${row * ROW + 12}" text-anchor="end">${kind}</text>`,
    )}${values.map(
      ({ kind, layer, value }) =>
        html`<rect class="cell" x="${at(x(layer))}" y="${kinds.indexOf(kind) * ROW + 0.5}" width="${at(x(layer + 1) - x(layer) - gap)}" height="${ROW - 1}" fill-opacity="${shade(value).toFixed(2)}"><title>layer ${layer} ${kind}: ${format(value)} ${unit}</title></rect>
`,
    )}${numbered.map(
      (layer) =>
        html`<text class="tick" x="${at((x(layer) + x(layer + 1)) / 2)}" y="${bottom + 12}" text-anchor="middle">${layer}</text>`,
    )}<text class="tick" x="${LEFT - 5}" y="${bottom + 12}" text-anchor="end">layer</text>${legend.map(
      (value, i) =>
        html`<rect class="cell" x="${LEFT + i * 56}" y="${bottom + 22}" width="14" height="14" fill-opacity="${shade(value).toFixed(2)}"/><text class="tick" x="${LEFT + i * 56 + 18}" y="${bottom + 33}">${format(value)}</text>`,
    )}<text class="tick" x="${LEFT - 5}" y="${bottom + 33}" text-anchor="end">${unit}</text>`,
  );
}
