/** What all folders share on the page: the table, side by side, and the frontier of size against quality. */
import { megabytes, percent, withError } from "./format.js";
import { html, type Markup } from "./markup.js";
import { mark } from "./plots/axes.js";
import { type FrontierPoint, frontierPlot } from "./plots/frontier.js";
import { type ReportedFolder, type SharedText, sharedTexts } from "./report.js";
import { table } from "./table.js";

/** Nothing for a single folder. */
export function compareSection(folders: readonly ReportedFolder[]): Markup | null {
  if (folders.length < 2) return null;
  const shared = sharedTexts(folders);
  const speed = folders.some((folder) => folder.speed.length > 0);
  const overview = table({
    caption: "Sizes",
    columns: ["model", "weights", "ratio", "bits a weight", ...(speed ? ["decode, tokens/s"] : [])],
    rows: folders.map((folder, i) => [
      html`${key(i)}${folder.name}`,
      megabytes(folder.inspection.weightBytes),
      `${folder.inspection.ratio.toFixed(2)}x`,
      folder.inspection.bitsPerWeight.toFixed(3),
      ...(speed ? [folder.speed[0]?.decode.toFixed(1)] : []),
    ]),
  });
  return html`<section><h2>Side by side</h2>${overview}${
    shared.length > 0
      ? shared.map((text, i) => sharedText(text, folders, i))
      : html`<p class="note">No two of these models were measured on the same windows of the same text, so there is no plot of size against quality.</p>`
  }</section>
`;
}

function sharedText({ text, points }: SharedText, folders: readonly ReportedFolder[], index: number): Markup {
  const at = (pick: (point: SharedText["points"][number]) => [number, number | null] | null) =>
    points.flatMap((point): FrontierPoint[] => {
      const found = pick(point);
      if (!found) return [];
      const { name, inspection } = point.folder;
      const size = inspection.weightBytes / 1e6;
      return [{ name, series: folders.indexOf(point.folder), size, value: found[0], stderr: found[1] }];
    });
  const divergences = at(({ result: { reference, referenceIsOriginal } }) =>
    reference && referenceIsOriginal ? [reference.divergence.mean, reference.divergence.stderr] : null,
  );
  const perplexities = at(({ result }) => [result.perplexity, result.perplexityStderr]);
  const measured = `${text.text.name}, protocol ${text.protocol}, ${text.windows} windows of ${text.context} tokens`;
  return html`${table({
    caption: measured,
    columns: ["model", "perplexity before", "perplexity", "divergence, nats", "same top token"],
    rows: points.map(({ folder, result }) => [
      html`${key(folders.indexOf(folder))}${folder.name}`,
      result.perplexityBefore?.toFixed(2),
      withError(result.perplexity, result.perplexityStderr, 2),
      result.reference && withError(result.reference.divergence.mean, result.reference.divergence.stderr, 4),
      result.reference && percent(result.reference.sameTop),
    ]),
  })}<div class="plots">${
    divergences.length > 1 &&
    frontierPlot({
      id: `f${index}d`,
      title: "Size against divergence from the original",
      valueLabel: "KL, nats",
      points: divergences,
    })
  }${frontierPlot({
    id: `f${index}p`,
    title: "Size against perplexity",
    valueLabel: "perplexity",
    points: perplexities,
  })}</div>
`;
}

/** The mark of a model in plots. */
export function key(series: number): Markup {
  return html`<svg class="key" viewBox="-7 -7 14 14" aria-hidden="true">${mark(series, 0, 0, "")}</svg>`;
}
