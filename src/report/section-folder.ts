/** The page's part on one folder: what it is, sizes, bits, distortion, quality, speed, how it was made. */
import type { MatrixDistortion } from "./folder-facts.js";
import { grouped, megabytes, percent, significant, withError } from "./format.js";
import { type Content, html, type Markup } from "./markup.js";
import { type LayerValue, layerGrid } from "./plots/layer-grid.js";
import { partsBar } from "./plots/parts.js";
import { type ReportedFolder, type TextComparison, textComparisons } from "./report.js";
import { definitions, folded, table } from "./table.js";

export function folderSection(folder: ReportedFolder, index: number, alone: boolean): Markup {
  return html`<section><h2>${alone ? "The model" : folder.name}</h2>${facts(folder)}${sizes(folder, index)}${bits(folder, index)}${distortion(folder, index)}${quality(folder)}${speed(folder)}${making(folder)}</section>
`;
}

function facts(folder: ReportedFolder): Markup {
  const { ratio, weightBytes, bytes16, bitsPerWeight, parameters, architecture } = folder.inspection;
  const text = mainText(folder);
  const fact = (value: string, name: string) => html`<li><b>${value}</b><span>${name}</span></li>`;
  return html`<p>${architecture}, ${grouped(Number((parameters / 1e6).toFixed(1)))} million parameters: ${folder.layers} layers, hidden size ${folder.hiddenSize}, ${grouped(folder.vocabularySize)} tokens in the vocabulary, ${grouped(folder.contextLength)} tokens of context.</p>
<ul class="facts">${fact(`${ratio.toFixed(2)}x`, "smaller than in 16 bits")}${fact(megabytes(weightBytes), `of weights, ${megabytes(bytes16)} in 16 bits`)}${fact(bitsPerWeight.toFixed(3), "bits a weight, everything counted")}${
    text &&
    fact(
      text.perplexity.toFixed(2),
      `perplexity${text.perplexityBefore === null ? "" : `, ${text.perplexityBefore.toFixed(2)} before`}`,
    )
  }${
    text?.reference && [
      fact(text.reference.divergence.mean.toFixed(3), "nats of divergence, mean"),
      fact(percent(text.reference.sameTop), "same most likely token"),
    ]
  }</ul>${
    text &&
    html`<p class="note">Measured on ${text.text.name}, protocol ${text.protocol}, ${text.windows} windows of ${text.context} tokens.</p>`
  }
`;
}

/** The text that says most: compared with the original if one is, then with the most tokens. */
function mainText(folder: ReportedFolder): TextComparison | undefined {
  return textComparisons(folder).sort(
    (a, b) =>
      Number(b.referenceIsOriginal) - Number(a.referenceIsOriginal) || b.tokensScored - a.tokensScored,
  )[0];
}

function sizes({ inspection: { parts, files } }: ReportedFolder, index: number): Markup {
  return html`<h3>Sizes</h3>${partsBar(`m${index}s`, parts)}${table({
    caption: "Weights by part",
    columns: ["part", "weights", "bytes", "bits a weight"],
    rows: parts.map(({ name, weights, bytes, bitsPerWeight }, i) => [
      html`<svg class="key" viewBox="0 0 14 14" aria-hidden="true"><rect class="s${i % 6}" width="14" height="14" rx="2"/></svg>${name}`,
      grouped(weights),
      grouped(bytes),
      weights > 0 && bitsPerWeight.toFixed(3),
    ]),
  })}${folded(
    "Files",
    table({
      caption: "Files of the folder",
      columns: ["file", "bytes"],
      rows: files.map(({ name, bytes }) => [name, grouped(bytes)]),
    }),
  )}`;
}

function bits({ inspection: { tensors } }: ReportedFolder, index: number): Markup {
  const coded = tensors.filter(({ tiers }) => tiers !== undefined);
  return html`<h3>Bits by layer</h3>${layerGrid({
    id: `m${index}b`,
    title: "Bits a weight of each matrix",
    unit: "bits",
    format: (value) => value.toFixed(2),
    values: coded.flatMap(({ name, bitsPerWeight }) => layerValue(name, bitsPerWeight)),
  })}${folded(
    "Bits of every matrix",
    table({
      caption: "Coded matrices; rows by themselves where their bits differ",
      columns: ["matrix", "rows", "method", "bits a weight"],
      rows: coded.flatMap(({ name, method, tiers }) =>
        tiers!.map(({ rows, bitsPerWeight }) => [name, rowRange(rows), method, bitsPerWeight.toFixed(3)]),
      ),
    }),
  )}`;
}

function distortion({ distortion, calibrationDivergence }: ReportedFolder, index: number): Markup {
  const grid = (id: string, title: string, pick: (entry: MatrixDistortion) => number | null) =>
    layerGrid({
      id: `m${index}${id}`,
      title,
      unit: "%",
      format: (share) => (100 * share).toFixed(2),
      values: distortion.flatMap((entry) => {
        const value = pick(entry);
        return value === null ? [] : layerValue(entry.name, value);
      }),
    });
  const held =
    calibrationDivergence !== null &&
    html`<p>Divergence from the original on calibration text that was held out, measured when the folder was made: ${withError(calibrationDivergence, null, 4)} nats.</p>`;
  if (distortion.length === 0)
    return html`<h3>Distortion by matrix</h3>${held}<p class="note">The manifest has no errors of matrices.</p>`;
  return html`<h3>Distortion by matrix</h3>${held}<p>The squared error of the weights as a share of their square sum, and the same of what the layer puts out on the calibration text, which is what coding made small.</p>
<div class="plots">${grid("o", "Error of the outputs", ({ proxyError }) => proxyError)}${grid("e", "Error of the weights", ({ squaredError }) => squaredError)}</div>${folded(
    "Errors of every matrix",
    table({
      caption: "Squared errors as shares",
      columns: ["matrix", "rows", "of the outputs", "of the weights"],
      rows: distortion.map(({ name, rows, squaredError, proxyError }) => [
        name,
        rowRange(rows),
        proxyError !== null && `${significant(100 * proxyError)} %`,
        `${significant(100 * squaredError)} %`,
      ]),
    }),
  )}`;
}

function quality(folder: ReportedFolder): Markup {
  const texts = textComparisons(folder);
  if (texts.length === 0)
    return html`<h3>Quality</h3><p class="note">Not measured: give results of <code>eval --out</code> with <code>--evaluation</code>.</p>`;
  return html`<h3>Quality</h3>${table({
    caption:
      "Before is the model that it is compared with, on the same windows; divergence is KL(before || after)",
    columns: [
      ...["text", "windows", "tokens scored", "perplexity before", "perplexity after"],
      ...["divergence, nats", "median", "99 %", "same top token"],
    ],
    rows: texts.map((text) => [
      `${text.text.name} (${text.protocol})`,
      `${text.windows} x ${grouped(text.context)}`,
      grouped(text.tokensScored),
      text.perplexityBefore?.toFixed(4),
      withError(text.perplexity, text.perplexityStderr, 4),
      ...(text.reference ? distance(text.reference) : [null, null, null, null]),
    ]),
  })}${
    texts.some(({ reference, referenceIsOriginal }) => reference && !referenceIsOriginal) &&
    html`<p class="note">A reference was not the file that the folder was made from.</p>`
  }${
    folder.evaluations.some(({ adapter }) => adapter !== null) &&
    html`<p class="note">Some results were measured with an adapter on top.</p>`
  }`;
}

function distance({ divergence, sameTop }: NonNullable<TextComparison["reference"]>): Content[] {
  const { mean, stderr, median, p99 } = divergence;
  return [withError(mean, stderr, 5), median.toFixed(5), p99.toFixed(5), percent(sameTop, 2)];
}

function speed({ speed }: ReportedFolder): Markup | null {
  if (speed.length === 0) return null;
  return html`<h3>Speed</h3>${table({
    caption: "Tokens a second; medians, of the machine named",
    columns: ["machine", "prompt", "answer", "first token", "memory", "load"],
    rows: speed.map((run) => [
      run.machine ?? "not named",
      run.prefill.toFixed(1),
      run.decode.toFixed(1),
      `${run.timeToFirstToken.toFixed(3)} s`,
      megabytes(run.residentBytes),
      `${run.loadSeconds.toFixed(2)} s`,
    ]),
  })}`;
}

function making({ made, manifestSha256, path }: ReportedFolder): Markup {
  const { tool, toolVersion, source, options, calibration } = made;
  return html`<h3>How it was made</h3>${definitions([
    ["folder", html`<code>${path}</code>`],
    ["manifest", hash(manifestSha256)],
    ["made by", `${tool} ${toolVersion}`],
    ["made from", html`${source.format}, ${hash(source.sha256)}`],
    ...Object.entries(options).map(
      ([name, value]) =>
        [name, html`<code>${typeof value === "string" ? value : JSON.stringify(value)}</code>`] as const,
    ),
    ...calibration.map(
      ({ name, bytes, sha256 }) =>
        ["calibration text", html`${name}, ${grouped(bytes)} bytes, ${hash(sha256)}`] as const,
    ),
  ])}`;
}

function hash(sha256: string): Markup {
  return html`SHA-256 <code>${sha256}</code>`;
}

function rowRange([start, end]: readonly [number, number]): string {
  return `${start}–${end - 1}`;
}

/** Of a matrix of a layer; none of others. */
function layerValue(name: string, value: number): LayerValue[] {
  const match = /^model\.layers\.(\d+)\.(?:\w+\.)?(\w+)$/.exec(name);
  return match ? [{ layer: Number(match[1]), kind: match[2], value }] : [];
}
